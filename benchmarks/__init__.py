"""What the book's code costs beside other implementations: python -m benchmarks, or make bench."""
