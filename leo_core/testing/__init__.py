"""What plug-in authors test with: one kit per kind of plug-in, and what is wrong on purpose, to test the kits with.

A kit is a tuple of checks, each a function that raises :class:`AssertionError` with what is wrong::

    @pytest.mark.parametrize("check", solver_kit.CHECKS, ids=lambda check: check.__name__)
    def test_my_solver(check):
        check(MySolver())

An executor is tested where it can be started, and joined by a worker: ``check(executor_kit.Place(start, join))``.
"""
