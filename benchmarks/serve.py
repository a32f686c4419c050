"""A server under load: so many clients, each with one photograph at a time, for a while.

    PYTHONPATH=. python benchmarks/serve.py RUN FOLDER --clients=16 --seconds=60

starts `fgjax serve` for a finished run and sends it the images over loopback. Prints answers
a second, the median and the 95th percentile of their times, and how many were sent away (429).
"""

import argparse
import pathlib
import statistics
import subprocess
import sys
import threading
import time

import httpx


def _client(address, files, until, found, lock):
    with httpx.Client(base_url=address, timeout=60, trust_env=False) as client:
        number = threading.get_ident() % len(files)
        while time.monotonic() < until:
            file = files[number % len(files)]
            began = time.monotonic()
            answer = client.post("/api/predict", files={"files": (file.name, file.read_bytes())})
            taken, number = time.monotonic() - began, number + 1
            error = answer.status_code != 200 or answer.json()[0]["error"]
            with lock:
                found.append((taken, answer.status_code, bool(error)))
            if answer.status_code == 429:
                time.sleep(2)


def _main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=pathlib.Path)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--port", type=int, default=8765)
    options = parser.parse_args()
    files = sorted(p for p in options.folder.iterdir() if p.is_file())
    words = ("serve", f"--workdir={options.run}", f"--port={options.port}")
    server = subprocess.Popen([sys.executable, "-m", "fgjax", *words], stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None and b"http" in server.stdout.readline()
        found, lock, until = [], threading.Lock(), time.monotonic() + options.seconds
        arguments = (f"http://127.0.0.1:{options.port}", files, until, found, lock)
        clients = [threading.Thread(target=_client, args=arguments) for _ in range(options.clients)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
    finally:
        server.terminate()
        server.wait(20)
    times = sorted(taken for taken, code, _ in found if code == 200)
    away = sum(code == 429 for _, code, _ in found)
    errors = sum(error for _, code, error in found if code != 429)
    print(f"{len(times) / options.seconds:.1f} answers/s, median {statistics.median(times):.2f} s, "
          f"95 % within {times[int(0.95 * (len(times) - 1))]:.2f} s; {away} sent away, "
          f"{errors} errors")  # fmt: skip


if __name__ == "__main__":
    _main()
