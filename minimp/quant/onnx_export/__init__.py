"""Models on codes as ONNX files (extra ``onnx``), and their codes compared with onnx.reference.

- ``exporting``: the file. ``qdq``, ``pools``, ``integer``, ``plain``: how each module is written.
- ``agreement``: the comparison. ``ties``: where codes may differ, and why nowhere else.
"""

from minimp.quant.onnx_export.agreement import Agreement, LayerAgreement, verify
from minimp.quant.onnx_export.exporting import export_onnx
from minimp.quant.onnx_export.reports import LayerNodes, OnnxReport

__all__ = ["Agreement", "LayerAgreement", "LayerNodes", "OnnxReport", "export_onnx", "verify"]
