"""What was found and done, for people (a table) and for programs (plain JSON values)."""
