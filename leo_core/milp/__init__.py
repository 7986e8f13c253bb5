"""Mixed-integer programs as plain arrays, and the protocol a solver answers them by."""
