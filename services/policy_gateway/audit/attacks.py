"""Which kind of attack a refused call would have been: every refusal is of exactly one kind of ATTACKS. Pure."""

from typing import Any, Final

_BY_CODE: Final = {
    "unknown_role": "role_escalation",
    "role_mismatch": "role_escalation",
    "approval_required": "role_escalation",
    "bad_timeout": "resource_abuse",
    "timeout_exceeded": "resource_abuse",
    "too_large": "resource_abuse",
    "call_limit_exceeded": "resource_abuse",
    "docker_resource_limits_required": "resource_abuse",
    "dangerous_git_operation": "dangerous_git",
    "forbidden_command": "shell_injection",
    "write_access_denied": "unauthorized_file_write",
    "forbidden_url": "http_exfiltration",
    "resolved_address_denied": "http_exfiltration",
    "too_many_redirects": "http_exfiltration",
    "forbidden_image": "container_escape",
    "forbidden_mount": "container_escape",
    "lua_restricted": "lua_escape",
}
_BY_TOOL: Final = {"http": "http_exfiltration", "git": "dangerous_git", "shell": "shell_injection"}
"""What somebody wants who reaches for a tool that the role does not have."""
_LISTENERS: Final = frozenset({"nc", "ncat", "netcat", "socat", "telnet", "sshd", "ngrok"})
_LISTEN_WORDS: Final = ("listen", "bind(", "gen_tcp", "socket", "accept(")


def attack_of(code: str, tool: str, args: Any) -> str:
    """The kind of attack of a call that was refused with `code`."""
    if _listens(tool, args):
        return "network_backdoor"
    if code == "forbidden_path":
        return "unauthorized_file_write" if _writes(args) else "unauthorized_file_read"
    found = _BY_CODE.get(code)
    if found is not None:
        return found
    if code == "forbidden_tool":
        if tool == "fs" and _writes(args):
            return "unauthorized_file_write"
        return _BY_TOOL.get(tool, "tool_misuse")
    return "tool_misuse"


def _writes(args: Any) -> bool:
    return isinstance(args, dict) and "write" in args


def _listens(tool: str, args: Any) -> bool:
    """Whether the call would have opened this machine to the network."""
    if not isinstance(args, dict):
        return False
    if tool == "http":
        return str(args.get("method", "")).lower() == "listen"
    if tool == "lua":
        src = args.get("src")
        return isinstance(src, str) and any(word in src for word in _LISTEN_WORDS)
    cmd = args.get("cmd")
    return isinstance(cmd, list) and bool(cmd) and isinstance(cmd[0], str) and cmd[0] in _LISTENERS
