"""How long work may take, and how it tells the outside where it stands."""
