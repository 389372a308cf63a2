"""python -m amct_onnx."""

import sys

from amct_onnx.cli import main

sys.exit(main())
