"""Latency of another engine: peers.py ENGINE MODEL THREADS RUNS prints one line of JSON.

Engines: onnxruntime and openvino (.onnx), litert (.tflite), by their Python packages; exit
status 3 where the package is not installed. Loading is timed to the first output, imports
excluded; then the engine warms up for a tenth of a second, as `bench` does.
"""

import sys

# The current folder is the user's, not a place for modules.
sys.path = [path for path in sys.path if path]

import json
import os
import time

engine, model, threads, runs = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = str(threads)

try:
    import numpy

    if engine == "onnxruntime":
        import onnxruntime as package
    elif engine == "openvino":
        import openvino as package
    elif engine == "litert":
        import ai_edge_litert.interpreter as package
    else:
        sys.exit(f"no engine {engine}")
except ImportError as error:
    print(error, file=sys.stderr)
    sys.exit(3)


def numbers(shape, dtype):
    """A fixed pattern from -1 to 1, or of all integers."""
    shape = [d if isinstance(d, int) and d > 0 else 1 for d in shape]
    pattern = numpy.arange(numpy.prod(shape)) % 255
    if numpy.issubdtype(dtype, numpy.integer):
        return (pattern + numpy.iinfo(dtype).min).astype(dtype).reshape(shape)
    return (pattern / 127 - 1).astype(dtype).reshape(shape)


def onnxruntime():
    options = package.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = package.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0]
    kinds = {"tensor(float)": "f4", "tensor(float16)": "f2", "tensor(uint8)": "u1", "tensor(int8)": "i1"}
    feed = {given.name: numbers(given.shape, numpy.dtype(kinds[given.type]))}
    return lambda: session.run(None, feed)


def openvino():
    core = package.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(core.read_model(model), "CPU", settings)
    request, given = compiled.create_infer_request(), compiled.input(0)
    shape = [d.get_length() if d.is_static else 1 for d in given.partial_shape]
    tensor = package.Tensor(numbers(shape, given.element_type.to_dtype()))
    request.set_input_tensor(tensor)
    return request.infer


def litert():
    interpreter = package.Interpreter(model, num_threads=threads)
    interpreter.allocate_tensors()
    given = interpreter.get_input_details()[0]
    interpreter.set_tensor(given["index"], numbers(given["shape"].tolist(), given["dtype"]))
    return interpreter.invoke


start = time.perf_counter()
run = {"onnxruntime": onnxruntime, "openvino": openvino, "litert": litert}[engine]()
run()
load_ms = (time.perf_counter() - start) * 1e3

start, count = time.perf_counter(), 0
while count < 3 or time.perf_counter() - start < 0.1:
    run()
    count += 1
ms = []
for _ in range(runs):
    start = time.perf_counter()
    run()
    ms.append((time.perf_counter() - start) * 1e3)
ms.sort()
try:
    status = open("/proc/self/status").read()
    rss_mb = int(status.split("VmHWM:")[1].split()[0]) / 1024
except (OSError, IndexError, ValueError):
    rss_mb = None
at = lambda share: ms[min(int(len(ms) * share), len(ms) - 1)]
print(json.dumps({"median_ms": at(0.5), "min_ms": ms[0], "load_ms": load_ms, "rss_mb": rss_mb}))
