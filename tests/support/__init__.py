"""What tests share: tiny models, stand-ins, commands."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    # Several processes test at once: one thread each, on whichever core is free. Here, because libraries read it when they are
    # imported, and nothing of ours is imported earlier.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
