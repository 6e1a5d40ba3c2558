"""Collectors: what reads numbers that agents do not send, such as the length of a queue.

Owns reading: one number at a time, from whoever knows it. When that happens, and what becomes of a reading that
fails, is the runtime's matter (`runtime_collecting`); what the number means is the core's.

Each kind is a file of its own that ends in a `Kind`, and one line in `kinds`. A kind says what its settings may be,
so that a configuration is checked without it, and how its reader is opened. The library that a reader needs is loaded
when the first one opens.
"""
