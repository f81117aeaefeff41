"""Lua in a pool of killable, memory-limited child processes; never in the process of a service.

Services use `services.runtime.lua.host.LuaHost`. The child imports this package too, in a sandbox that holds
nothing else of htdag: so this file imports nothing, and `child`, `lint` and `values` use the standard library
and lupa only.
"""
