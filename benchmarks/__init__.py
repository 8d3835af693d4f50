"""Speed and memory, each measured beside something a reader can run: `python -m benchmarks`, docs/benchmarks.md."""
