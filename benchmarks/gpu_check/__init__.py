"""What only a GPU, two of them, or a bigger model shows: `make gpu-check`.

    python -m benchmarks.gpu_check [--model DIR] [--also DIR …] [--only WORD …] [--list] [--output FILE.json]

Runs every check that this machine allows, prints what was expected and what was found, and names why others were skipped.
Where it is cheap the oracle is the model itself in float32 on the CPU, in plain forward passes without cache, batch or engine.
Each check works in processes of its own, so that one cannot spoil the memory of the next. Without a GPU the CPU part runs.
"""
