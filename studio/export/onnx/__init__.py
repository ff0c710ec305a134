"""The ONNX target: a graph with packed weights that onnxruntime, its GenAI and transformers.js load. Knows no other."""
