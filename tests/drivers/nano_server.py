"""A real model behind llama.cpp's OpenAI-compatible server, as a program: `python nano_server.py GGUF NAME KEY`.

Prints `ready URL` and serves until its standard input ends.
"""

import importlib
import os
import sys


def main(model_path: str, name: str, key: str) -> None:
    """Serve with as little memory and time as a test needs."""
    llama = importlib.import_module("xllamacpp")
    settings = llama.CommonParams()
    settings.model.path = model_path
    settings.model_alias = {name}
    settings.api_keys = [key]
    settings.hostnames = ["127.0.0.1"]
    settings.port = 0
    settings.n_ctx = 1024
    settings.n_parallel = 1
    # A prompt that comes from a cache is computed in other batches, and may then be answered in other words.
    settings.cache_prompt = False
    settings.cache_ram_mib = 0
    # Two threads wait for each other by spinning, and crawl where other tests keep the cores busy.
    settings.cpuparams.n_threads = 1
    settings.cpuparams_batch.n_threads = 1
    settings.sampling.temp = 0.0
    settings.ui = False
    settings.warmup = False
    settings.use_jinja = True
    server = llama.Server(settings)
    sys.stdout.write(f"ready {server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.read()
    # Its threads may be in the middle of an answer that nobody waits for any more.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
