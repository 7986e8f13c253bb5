"""What plug-in authors test with: one kit per kind of plug-in, and the solvers the kit is itself tested with.

A kit is a tuple of checks, each a function that raises :class:`AssertionError` with what is wrong::

    @pytest.mark.parametrize("check", solver_kit.CHECKS, ids=lambda check: check.__name__)
    def test_my_solver(check):
        check(MySolver())
"""
