"""The Qdrant server that the contract is held against, where LOOKALIKE_QDRANT_URL names one.

Taken out of the environment when tests begin: everything else that they start has an index of its own.
"""

from __future__ import annotations

import os

URL = os.environ.pop("LOOKALIKE_QDRANT_URL", None)
API_KEY = os.environ.pop("LOOKALIKE_QDRANT_API_KEY", None)
GRPC_PORT = os.environ.pop("LOOKALIKE_QDRANT_GRPC_PORT", None)
