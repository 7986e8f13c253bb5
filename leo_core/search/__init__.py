"""One claim at a time, 'sign·a is never positive on a region': searches for a proof, or for a point that refutes it.

Points are looked for by :mod:`~leo_core.search.attack` and believed by :mod:`~leo_core.search.witness`. Proofs are
trees: of halvings of the box (:mod:`~leo_core.search.boxes`) or of ReLU phases, by bounds
(:mod:`~leo_core.search.batch_tree`) or LPs with cuts (:mod:`~leo_core.search.lp_tree`), put together in
:mod:`~leo_core.search.evidence`. A MILP solver is a hint (:mod:`~leo_core.search.oracle`).
"""
