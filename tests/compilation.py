"""How the tests compile: fast rather than to fast programs, which they run for a step or two.

The comparison with the released program in test_reference_step.py compiles as a user's run does.
"""

import jaxlib

FAST_COMPILATION = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}
# XLA ends a process that gives it a flag it does not know, and jaxlib 0.12 dropped this one.
if jaxlib.version.__version_info__ < (0, 12):
    # Without the fusion emitters XLA writes the same loops the older way: a training step then
    # compiles in half the time.
    FAST_COMPILATION["xla_cpu_use_fusion_emitters"] = False
# The same for XLA_FLAGS.
FAST_FLAGS = " ".join(f"--{name}={value}".lower() for name, value in FAST_COMPILATION.items())
