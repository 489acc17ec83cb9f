"""What any program needs: files, locks, signals, progress, the command line."""
