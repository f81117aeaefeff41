"""The boundary: programs of agents run in bubblewrap, whatever they were told and whatever they are.

`box` describes what a program sees, `seccomp` what it may ask of the kernel, `limits` and `cgroups` how much it may
take, `running` holds the deadline and kills the whole process tree, `selftest` proves each property on this machine.
Where the sandbox cannot be built the call fails (`sandbox_unavailable`); there is no fallback.
"""
