"""What plug-in authors test with: conformance kits, a reference solver, and solvers that are wrong on purpose."""
