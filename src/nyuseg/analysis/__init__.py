"""Looking at experiments: comparison, leaks, test-time views."""
