"""The cores of the primitives as pure functions of tensors; no parameters, no options of a pattern.

Recurrent cores take ``impl="naive"`` (the recurrence as the paper writes it) or ``"chunk"`` (parallel
within chunks), an optional initial state, and return (output, final state).
"""
