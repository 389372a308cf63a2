"""Public sources that rules of several files rest on, by repository and path."""

LIMITS = "CANN documentation of AMCT: restrictions on quantized layers"
PASSES = "older fusion engine: QuantProcess passes (bias optimisation, quant rollback)"
HOST_OPS = "ge: quant_pass/quant_host_cpu_op_common.cc"
ANTIQUANT_PLUGIN = "ops-nn: quant/ascend_anti_quant/framework/ascend_anti_quant_onnx_plugin.cpp"
