import os

# MindSpore's protobuf code needs this one. It has to be chosen before onnx, which these tests import, loads protobuf.
os.environ.setdefault("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python")
