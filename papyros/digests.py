"""The function by whose digests definitions, shared values and sources are known.

It is that of `hashlib`, from where `hashlib` has it: to import `hashlib` loads OpenSSL, which nobody here needs, and
takes a tenth of the time in which a slave starts.
"""

from __future__ import annotations

try:
    from _blake2 import blake2b
except ImportError:  # a Python that was built without it
    from hashlib import blake2b

__all__ = ["blake2b"]
