"""MILP solvers behind LEO's session protocol: each a spec and an adapter, importing its package when used."""
