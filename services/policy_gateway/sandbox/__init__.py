"""The boundary: programs of agents run in bubblewrap, whatever they were told and whatever they are.

`box` describes what a program sees, `seccomp` what it may ask of the kernel, `limits` and `cgroups` how much it may
take, `disk` and `ledger` what they may write and workspaces hold, `guard` and `twins` prepare the places that a box
needs in a workspace, `running` holds the deadline and kills the whole process tree, `selftest` proves each property on
this machine.
Where the sandbox cannot be built the call fails (`sandbox_unavailable`); there is no fallback.
"""
