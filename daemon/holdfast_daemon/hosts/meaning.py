"""What becomes of each option that `ssh -G` prints. Values only; no option is missing.

`docs/ssh-config.md` shows the same table to users.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

# Values that ask for nothing.
OFF = ("", "no", "none", "false", "off", "default")


class Kind(StrEnum):
    """How holdfast treats an option."""

    HONOURED = "honoured"
    HARMLESS = "no effect"
    NOTED = "not done, and said so"
    REFUSED = "refused by name"


class Meaning(NamedTuple):
    """One option of ssh.

    Attributes:
        name: As the manual spells it.
        kind: How it is treated.
        text: Where or how it is honoured; why not, and what to do instead.
        off: Values that ask for nothing, besides ssh's own default.
        where: The option it needs to mean anything; empty: none.
    """

    name: str
    kind: Kind
    text: str
    off: tuple[str, ...] = OFF
    where: str = ""


def _all(kind: Kind, text: str, *names: str) -> Iterator[Meaning]:
    return (Meaning(name, kind, text) for name in names)


_RESOLVED = "by `ssh -G`, while the name is resolved"
_KEYS = "when the host's key is checked"
_LOGIN = "at the login"
_DIALLED = "when the connection is made"
_AGREED = "in the key exchange"
_FORWARDS = "only forwards use it, which ssh_forward_open opens"
_NO_X11 = "no display is lent: commands run for agents, which see none"
_NO_FORWARD = "it is not opened with a connection; ssh_forward_open opens forwards"
_NO_GSSAPI = "GSSAPI is not spoken: the other ways to log in are tried"
_NO_MASTER = "one connection is shared already; sockets of other programs are not used"
_QUIET = "the daemon has a log of its own"
_NO_TERMINAL = "nobody types at this program"
_HOST_BASED = "host-based logins need ssh-keysign: use a key or an agent"

_MEANINGS = (
    *_all(
        Kind.HONOURED,
        _RESOLVED,
        "Host",
        "HostName",
        "CanonicalDomains",
        "CanonicalizeFallbackLocal",
        "CanonicalizeHostname",
        "CanonicalizeMaxDots",
        "CanonicalizePermittedCNAMEs",
        "ClearAllForwardings",
        "IgnoreUnknown",
        "Tag",
    ),
    *_all(
        Kind.HONOURED,
        _DIALLED,
        "AddressFamily",
        "BindAddress",
        "BindInterface",
        "ConnectionAttempts",
        "Port",
        "ProxyCommand",
        "ProxyJump",
        "TCPKeepAlive",
    ),
    Meaning(
        "IPQoS",
        Kind.HONOURED,
        "when the connection is made: its second value, as for commands",
    ),
    Meaning("ConnectTimeout", Kind.HONOURED, "it bounds the login as a whole"),
    *_all(
        Kind.HONOURED,
        _AGREED,
        "Ciphers",
        "Compression",
        "HostKeyAlgorithms",
        "KexAlgorithms",
        "MACs",
    ),
    Meaning(
        "RekeyLimit",
        Kind.HONOURED,
        "as long as the connection lasts; its size counts what this side sends",
    ),
    *_all(
        Kind.HONOURED,
        _KEYS,
        "CASignatureAlgorithms",
        "CheckHostIP",
        "GlobalKnownHostsFile",
        "HashKnownHosts",
        "HostKeyAlias",
        "KnownHostsCommand",
        "NoHostAuthenticationForLocalhost",
        "RevokedHostKeys",
        "UpdateHostKeys",
        "UserKnownHostsFile",
    ),
    Meaning(
        "StrictHostKeyChecking",
        Kind.HONOURED,
        "when the host's key is checked: ask is yes, for want of somebody to ask, and"
        " a changed key is refused whatever it says",
    ),
    Meaning(
        "RequiredRSASize",
        Kind.HONOURED,
        "for the host's key and for those that are offered",
    ),
    *_all(
        Kind.HONOURED,
        _LOGIN,
        "CertificateFile",
        "IdentitiesOnly",
        "IdentityAgent",
        "IdentityFile",
        "KbdInteractiveAuthentication",
        "PasswordAuthentication",
        "PreferredAuthentications",
        "PubkeyAcceptedAlgorithms",
        "PubkeyAuthentication",
        "User",
    ),
    *_all(
        Kind.HONOURED,
        "as long as the connection lasts; with an interval or a count of 0 the"
        " daemon's own limits hold, so that nobody waits for a dead host",
        "ServerAliveCountMax",
        "ServerAliveInterval",
    ),
    Meaning(
        "ForwardAgent",
        Kind.HONOURED,
        "for hosts whose configuration says so, never by a call",
    ),
    Meaning("SetEnv", Kind.HONOURED, "with every command"),
    Meaning(
        "SendEnv",
        Kind.HONOURED,
        "with every command, from the daemon's environment; variables of holdfast,"
        " of ssh and those that hold credentials are never sent",
    ),
    *_all(
        Kind.HONOURED,
        "it runs once per connection, after the login",
        "LocalCommand",
        "PermitLocalCommand",
    ),
    Meaning(
        "RequestTTY",
        Kind.HONOURED,
        "force gives each command a terminal; yes asks for one only where a person"
        " types, so gives none; a call's tty stands above it",
    ),
    Meaning(
        "RemoteCommand",
        Kind.HONOURED,
        "as with ssh, a command is refused beside it: a call may set it to none",
    ),
    Meaning(
        "SessionType",
        Kind.HONOURED,
        "as with ssh, none and subsystem run no command: it is refused",
    ),
    Meaning(
        "RefuseConnection", Kind.REFUSED, "it is there to refuse, and this is its text"
    ),
    # refused
    Meaning(
        "PKCS11Provider",
        Kind.REFUSED,
        "load the token into ssh-agent (`ssh-add -s PROVIDER`)",
    ),
    Meaning(
        "SecurityKeyProvider",
        Kind.REFUSED,
        "load the security key into ssh-agent with this provider",
        off=("internal", "", "none"),
    ),
    Meaning(
        "GSSAPIDelegateCredentials",
        Kind.REFUSED,
        "GSSAPI is not spoken, so no credential is delegated",
        where="gssapiauthentication",
    ),
    Meaning("HostbasedAuthentication", Kind.REFUSED, _HOST_BASED),
    Meaning(
        "ProxyUseFdpass",
        Kind.REFUSED,
        "let the ProxyCommand carry the connection by its input and output",
        where="proxycommand",
    ),
    Meaning("Tunnel", Kind.REFUSED, "no network device is made: use ssh for it"),
    Meaning(
        "ChannelTimeout",
        Kind.REFUSED,
        "commands have limits of their own: timeout_seconds",
    ),
    # not done, and said so
    *_all(Kind.NOTED, _NO_FORWARD, "DynamicForward", "LocalForward", "RemoteForward"),
    *_all(Kind.NOTED, _NO_X11, "ForwardX11"),
    # no effect
    *_all(
        Kind.HARMLESS,
        _FORWARDS,
        "ExitOnForwardFailure",
        "GatewayPorts",
        "PermitRemoteOpen",
        "StreamLocalBindMask",
        "StreamLocalBindUnlink",
    ),
    *_all(
        Kind.HARMLESS,
        "it matters only where a display is lent",
        "ForwardX11Timeout",
        "ForwardX11Trusted",
        "XAuthLocation",
    ),
    *_all(
        Kind.HARMLESS,
        _NO_GSSAPI,
        "GSSAPIAuthentication",
        "GSSAPIClientIdentity",
        "GSSAPIKexAlgorithms",
        "GSSAPIRenewalForcesRekey",
        "GSSAPIServerIdentity",
        "GSSAPITrustDNS",
    ),
    Meaning(
        "GSSAPIKeyExchange",
        Kind.HARMLESS,
        "the host proves itself by its key alone, which must be known",
    ),
    *_all(
        Kind.HARMLESS,
        "it matters only for host-based logins, which are refused",
        "EnableSSHKeysign",
        "HostbasedAcceptedAlgorithms",
    ),
    Meaning("TunnelDevice", Kind.HARMLESS, "it matters only with Tunnel"),
    Meaning(
        "VerifyHostKeyDNS",
        Kind.HARMLESS,
        "DNS is not asked: it could only vouch for an unknown key, which stays unknown",
    ),
    Meaning(
        "ControlPath",
        Kind.HARMLESS,
        "one connection is shared already; a live master there is named where the"
        " host refuses the daemon's own login",
    ),
    *_all(Kind.HARMLESS, _NO_MASTER, "ControlMaster", "ControlPersist"),
    Meaning(
        "AddKeysToAgent",
        Kind.HARMLESS,
        "keys are used for the login only: one login serves everybody",
    ),
    Meaning(
        "BatchMode",
        Kind.HARMLESS,
        "nobody is asked but by `holdfast login`",
    ),
    Meaning(
        "NumberOfPasswordPrompts",
        Kind.HARMLESS,
        "a password that was refused is not tried again",
    ),
    *_all(
        Kind.HARMLESS,
        _QUIET,
        "LogLevel",
        "LogVerbose",
        "SyslogFacility",
    ),
    *_all(
        Kind.HARMLESS,
        _NO_TERMINAL,
        "EnableEscapeCommandline",
        "EscapeChar",
        "ForkAfterAuthentication",
        "ObscureKeystrokeTiming",
    ),
    Meaning(
        "StdinNull",
        Kind.HARMLESS,
        "a command's input is what the call gives, else none",
    ),
    *_all(
        Kind.HARMLESS,
        "fingerprints are shown as SHA256, and pictures where a person trusts a key",
        "FingerprintHash",
        "VisualHostKey",
    ),
    Meaning("KbdInteractiveDevices", Kind.HARMLESS, "the server chooses what it asks"),
    Meaning("VersionAddendum", Kind.HARMLESS, "holdfast names itself"),
    Meaning("WarnWeakCrypto", Kind.HARMLESS, "it only switches a warning of ssh"),
    Meaning("UseKeychain", Kind.HARMLESS, "passphrases come from where holdfast's do"),
)

MEANINGS: dict[str, Meaning] = {item.name.lower(): item for item in _MEANINGS}
