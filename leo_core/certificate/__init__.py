"""Evidence that anyone can re-check: what is written (``write``), and by whom it is believed (``check``)."""
