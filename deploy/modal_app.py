"""The server on Modal, on one GPU that is there only while somebody asks.

modal volume put neo-models path/to/checkpoint /neo-2b
modal secret create neo-keys NEO_API_KEY=...
modal deploy deploy/modal_app.py
"""

import os
import subprocess
from pathlib import Path

import modal

ROOT = Path(__file__).parents[1]
PORT = 8000
COMMAND = ["neo", "serve", "--host", "0.0.0.0", "--port", str(PORT), "--model", "/models/neo-2b", "--max-batch", "32"]

app = modal.App("neo")
image = (
    modal.Image.debian_slim(python_version="3.11")
    .add_local_file(ROOT / "constraints.txt", "/build/constraints.txt", copy=True)
    .add_local_file(ROOT / "pyproject.toml", "/build/pyproject.toml", copy=True)
    .add_local_file(ROOT / "README.md", "/build/README.md", copy=True)
    .add_local_file(ROOT / "LICENSE", "/build/LICENSE", copy=True)
    .add_local_dir(ROOT / "src", "/build/src", copy=True)
    .run_commands("pip install --constraint /build/constraints.txt '/build[serve]'")
)


@app.function(
    image=image,
    gpu="L4",
    volumes={"/models": modal.Volume.from_name("neo-models")},
    secrets=[modal.Secret.from_name("neo-keys")],
    scaledown_window=300,
    timeout=600,
)
@modal.concurrent(max_inputs=32)
@modal.web_server(PORT, startup_timeout=600)
def serve() -> None:
    keys = Path("/tmp/keys.txt")
    keys.write_text(os.environ["NEO_API_KEY"])
    subprocess.Popen([*COMMAND, "--api-key-file", str(keys)])
