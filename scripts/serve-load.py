#!/usr/bin/env python3
"""Loads `edge-classify serve` with photos, on this machine alone.

serve-load.py [--requests 100000] [--clients 16] [--photos DIR] [--binary PROGRAM] [-- OPTION...]

Prints the time that decoding, preprocessing and running take without a service, latencies at 1, 4 and 16
clients beside it, and resident memory after 1,000 requests and at the end. Ends with 1 where memory has grown
by more than 5 %, a request failed, or p99 at one client is more than three times the bare time.
Needs nothing but Python.
"""

import argparse
import http.client
import json
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent


def share(values, part):
    """The value that a share of them does not exceed."""
    values = sorted(values)
    return values[min(int(len(values) * part), len(values) - 1)]


def bare(program, photos, options):
    """Milliseconds of each photo, on one thread."""
    known = [option for option in options if option.startswith(("--model", "--isa"))]
    command = [program, "--json", "--time", "--threads=1", *known, *map(str, photos)]
    times = []
    for _ in range(3):
        out = subprocess.run(command, check=True, capture_output=True).stdout
        times += [sum(item["ms"].values()) for item in json.loads(out)]
    return times


def resident(pid):
    text = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024


class Load:
    """Clients that share photos and a number of requests."""

    def __init__(self, address, bodies, count):
        self.address, self.bodies, self.left = address, bodies, count
        self.lock = threading.Lock()
        self.times, self.failures = [], []

    def take(self):
        with self.lock:
            self.left -= 1
            return self.left if self.left >= 0 else None

    def client(self):
        connection = http.client.HTTPConnection(*self.address, timeout=60)
        times = []
        headers = {"Content-Type": "image/jpeg"}
        while (index := self.take()) is not None:
            body = self.bodies[index % len(self.bodies)]
            start = time.perf_counter()
            try:
                connection.request("POST", "/classify", body, headers)
                answer = connection.getresponse()
                text = answer.read()
                if answer.status != 200:
                    self.failures.append(text.decode())
            except OSError as e:
                self.failures.append(repr(e))
                connection.close()
            times.append((time.perf_counter() - start) * 1e3)
        connection.close()
        with self.lock:
            self.times += times

    def run(self, clients):
        threads = [threading.Thread(target=self.client) for _ in range(clients)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=16, help="of the long run")
    parser.add_argument("--photos", type=pathlib.Path)
    parser.add_argument("--binary", default=str(ROOT / "target/release/edge-classify"))
    parser.add_argument("options", nargs="*", help="of `serve`")
    args = parser.parse_args()
    folders = [args.photos] if args.photos else [ROOT.parent / "shared/data/cats-dogs/val", ROOT / "samples/pictures"]
    photos = next((found for folder in folders if (found := sorted(folder.rglob("*.jpg")))), None)
    if not photos:
        sys.exit("error: no photos; give --photos DIR")
    bodies = [photo.read_bytes() for photo in photos]
    times = bare(args.binary, photos, args.options)
    median, worst = share(times, 0.5), share(times, 0.99)
    print(f"{len(photos)} photos, {sum(map(len, bodies)) / len(bodies) / 1024:.0f} KiB on average")
    print(f"bare, one thread: p50 {median:.2f} ms, p99 {worst:.2f} ms", flush=True)

    command = [args.binary, "serve", "--listen=127.0.0.1:0", *args.options]
    service = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    first = service.stderr.readline()
    print(first.strip())
    host, port = re.search(r"http://([\d.]+):(\d+)", first).groups()
    address = (host, int(port))
    failed = []
    try:
        Load(address, bodies, 200).run(1)  # warm
        for clients in (1, 4, 16):
            load = Load(address, bodies, 2000)
            seconds = load.run(clients)
            p50, p99 = share(load.times, 0.5), share(load.times, 0.99)
            failed += load.failures
            print(
                f"{clients:>2} clients: p50 {p50:.2f} ms, p99 {p99:.2f} ms ({p99 / median:.2f} of the bare p50), "
                f"{2000 / seconds:.0f} pictures/s",
                flush=True,
            )
            if clients == 1 and p99 > 3 * median:
                failed.append(f"p99 at one client is {p99 / median:.2f} times the bare time")
        stop(service)
        service = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        address = (host, int(re.search(r":(\d+), ", service.stderr.readline())[1]))
        done, before = 0, None
        for count in [1000] + [max(1, (args.requests - 1000) // 9)] * 9:
            load = Load(address, bodies, count)
            seconds = load.run(args.clients)
            failed += load.failures
            done += count
            memory = resident(service.pid)
            before = before or memory
            print(f"{done:>7} requests: {memory:.1f} MiB resident, {count / seconds:.0f} pictures/s", flush=True)
        print(f"memory at the end: {(memory / before - 1) * 100:+.1f} % of that after 1,000 requests")
        if memory > before * 1.05:
            failed.append("memory has grown by more than 5 %")
    finally:
        stop(service)
    for what in sorted(set(failed))[:5]:
        print(f"error: {what}", file=sys.stderr)
    return 1 if failed else 0


def stop(service):
    service.send_signal(signal.SIGTERM)
    if service.wait(timeout=60) != 0:
        sys.exit(f"error: the service ended with {service.returncode}")


if __name__ == "__main__":
    sys.exit(main())
