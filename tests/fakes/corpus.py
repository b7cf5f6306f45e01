"""Configurations of ssh, each with what its point is: (title, text, target, fields).

`{d}` is the directory the files lie in; `files` are written beside the configuration.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
    """One configuration.

    Attributes:
        expect: Fields of the resolved host, by name, that are the point of it.
        fails: A part of the error, where ssh refuses it.
        alone: Resolved without an ssh too; else what is refused there is named here.
    """

    title: str
    text: str
    target: str = "box"
    expect: dict[str, object] = field(default_factory=dict[str, object])
    files: dict[str, str] = field(default_factory=dict[str, str])
    fails: str = ""
    alone: str = ""


CASES = (
    Case("nothing at all", "", expect={"hostname": "box", "port": 22}),
    Case("names are lower case", "", "BoX", {"hostname": "box"}),
    Case(
        "a block",
        "Host box\n HostName 10.0.0.1\n Port 2222\n User ann\n",
        expect={"hostname": "10.0.0.1", "port": 2222, "user": "ann"},
    ),
    Case(
        "the first value wins",
        "Host box\n Port 1\n Port 2\nHost *\n Port 3\n User last\n",
        expect={"port": 1, "user": "last"},
    ),
    Case(
        "defaults before the first block apply to all",
        "Port 7\nHost box\n Port 8\n",
        expect={"port": 7},
    ),
    Case("keywords in any case", "hOsT box\n pORT 5\n", expect={"port": 5}),
    Case("names keep their case", "Host Box\n Port 5\n", expect={"port": 22}),
    Case(
        "equals signs",
        "Host=box\nPort=5\nUser = ann\nIdentityFile =/k\n",
        expect={"port": 5, "user": "ann", "identity_files": ("/k",)},
    ),
    Case("tabs", "Host\tbox\n\tPort\t5\n", expect={"port": 5}),
    Case(
        "quotes",
        'Host "box"\n IdentityFile "/a key"\n User "ann"\n',
        expect={"identity_files": ("/a key",), "user": "ann"},
    ),
    Case(
        "single quotes and escapes",
        'Host box\n IdentityFile \'/a "key\'\n CertificateFile "/a\\"b"\n',
        expect={"identity_files": ('/a "key',), "certificate_files": ('/a"b',)},
    ),
    Case(
        "comments",
        "# Port 9\nHost box # other\n Port 5 # six\n  # User x\n User ann#1\n",
        expect={"port": 5, "user": "ann#1"},
    ),
    Case("a comment names no host", "Host box # other\n Port 5\n", "other"),
    Case("carriage returns", "Host box\r\n Port 5\r\n", expect={"port": 5}),
    Case("a quote that is not closed", 'Host "box\n Port 5\n', fails="quote"),
    Case("an unknown option", "Host box\n NoSuch yes\n", fails="nosuch"),
    Case(
        "an unknown option that is to be ignored",
        "IgnoreUnknown NoS*,Other\nHost box\n NoSuch yes\n Port 5\n",
        expect={"port": 5},
    ),
    Case("a value that can't be", "Host box\n AddressFamily inet7\n", fails="inet7"),
    Case("a port that can't be", "Host box\n Port ten\n", fails="line 2"),
    Case("no value", "Host box\n Port\n", fails="line 2"),
    Case(
        "wildcards",
        "Host *.org\n Port 1\nHost b?x\n Port 2\nHost *\n Port 3\n",
        expect={"port": 2},
    ),
    Case("brackets are no wildcards", "Host b[o]x\n Port 2\n", expect={"port": 22}),
    Case(
        "negation",
        "Host * !box\n Port 1\nHost !other *\n Port 2\n",
        expect={"port": 2},
    ),
    Case("only a negation matches nothing", "Host !other\n Port 2\n"),
    Case("several names", "Host a box c\n Port 2\n", expect={"port": 2}),
    Case("commas are part of a name", "Host a,box\n Port 2\n", expect={"port": 22}),
    Case(
        "HostName with a token",
        "Host box\n HostName %h.example.org\n",
        expect={"hostname": "box.example.org"},
    ),
    Case(
        "Host sees the name as given, not HostName",
        "Host box\n HostName real\nHost real\n Port 2\n",
        expect={"hostname": "real", "port": 22},
    ),
    Case(
        "Match host sees HostName",
        "Host box\n HostName real\nMatch host real\n Port 2\n",
        expect={"port": 2},
    ),
    Case(
        "Match originalhost",
        "Host box\n HostName real\nMatch originalhost box\n Port 2\n",
        expect={"port": 2},
    ),
    Case("Match host list", "Match host a,b*,!bad\n Port 2\n", expect={"port": 2}),
    Case("Match host negated", "Match !host box\n Port 2\n", expect={"port": 22}),
    Case("Match host list with a no", "Match host *,!box\n Port 2\n"),
    Case("Match all", "Match all\n Port 2\n", expect={"port": 2}),
    Case(
        "Match user",
        "User ann\nMatch user ann\n Port 2\n",
        expect={"port": 2, "user": "ann"},
    ),
    Case("Match user of the target", "Match user ann\n Port 2\n", "ann@box"),
    Case("Match localuser", "Match localuser {me}\n Port 2\n", expect={"port": 2}),
    Case("Match localuser of others", "Match localuser nobody-else\n Port 2\n"),
    Case(
        "Match exec",
        'Match exec "test %h = box"\n Port 2\n',
        expect={"port": 2},
        alone="Match exec",
    ),
    Case(
        "Match exec that fails",
        'Match exec "test %h = other"\n Port 2\n',
        expect={"port": 22},
        alone="Match exec",
    ),
    Case(
        "Match exec is not asked for others",
        'Match host other exec "touch {d}/mark"\n Port 2\n',
        expect={"port": 22},
    ),
    Case(
        "Match several",
        "Match host box user ann !localuser x\n Port 2\n",
        "ann@box",
        {"port": 2},
    ),
    Case(
        "Match final",
        "Match final host box\n User late\nHost box\n Port 2\n",
        expect={"port": 2, "user": "late"},
    ),
    Case(
        "Match final sees what was resolved",
        "Match final host real\n User late\nHost box\n HostName real\n",
        expect={"user": "late", "hostname": "real"},
    ),
    Case("Match final all", "Match final all\n User late\n", expect={"user": "late"}),
    Case(
        "the final pass reads Host by the resolved name",
        "Host box\n HostName real\nMatch final all\n Compression yes\n"
        "Host real\n User late\n",
        expect={"user": "late", "compression": True},
    ),
    Case("Match canonical without it", "Match canonical all\n User late\n"),
    Case(
        "CanonicalizeHostname that finds nothing",
        "CanonicalizeHostname yes\nMatch canonical all\n Port 2\nMatch all\n User a\n",
        expect={"user": "a"},
        alone="CanonicalizeHostname",
    ),
    Case(
        "CanonicalizeHostname with an address",
        "CanonicalizeHostname yes\nMatch canonical all\n User late\n",
        "127.0.0.1",
        {"user": "late"},
        alone="CanonicalizeHostname",
    ),
    Case("Match without a value", "Match host\n Port 2\n", fails="match"),
    Case("Match of nothing known", "Match weather fine\n Port 2\n", fails="match"),
    Case(
        "Include",
        "Include {d}/one\nHost box\n Port 9\n",
        expect={"port": 4},
        files={"one": "Host box\n Port 4\n"},
    ),
    Case(
        "Include of several, sorted",
        "Include {d}/*.conf\n",
        expect={"port": 1, "user": "b"},
        files={"b.conf": "Port 2\nUser b\n", "a.conf": "Port 1\n"},
    ),
    Case(
        "Include of two patterns",
        "Include {d}/x* {d}/y*\n",
        expect={"port": 1, "user": "y"},
        files={"y": "Port 2\nUser y\n", "x": "Port 1\n"},
    ),
    Case("Include of nothing", "Include {d}/none/*\nPort 3\n", expect={"port": 3}),
    Case(
        "Include nested",
        "Include {d}/one\n",
        expect={"port": 5},
        files={"one": "Include {d}/two\n", "two": "Host box\n Port 5\n"},
    ),
    Case(
        "Include in a block that applies",
        "Host box\n Include {d}/one\n User after\n",
        expect={"port": 5, "user": "after"},
        files={"one": "Port 5\nHost other\n User wrong\n"},
    ),
    Case(
        "Include in a block that does not",
        "Host other\n Include {d}/one\nHost *\n Port 6\n",
        expect={"port": 6},
        files={"one": "Host *\n Port 5\n"},
    ),
    Case(
        "Include with blanks and quotes",
        'Include "{d}/a file"\n',
        expect={"port": 5},
        files={"a file": "Port 5\n"},
    ),
    Case(
        "several keys",
        "Host box\n IdentityFile /one\n IdentityFile ~/two\nHost *\n"
        " IdentityFile /three\n IdentityFile /one\n",
        expect={"identity_files": ("/one", "{home}/two", "/three")},
    ),
    Case(
        "tokens in paths",
        "Host box\n User ann\n Port 5\n"
        " IdentityFile %d/%h_%p_%r_%n_%u_%i_%%\n CertificateFile /c/%C\n",
        expect={"identity_files": ("{home}/box_5_ann_box_{me}_{uid}_%",)},
    ),
    Case(
        "variables in paths",
        "Host box\n IdentityFile ${{HF_CORPUS}}/key\n",
        expect={"identity_files": ("/from-the-environment/key",)},
    ),
    Case(
        "a variable that is not set",
        "Host box\n IdentityFile ${{HF_NOT_SET}}/key\n",
        fails="HF_NOT_SET",
    ),
    Case(
        "none values",
        "Host box\n IdentityFile none\n ProxyCommand none\n ProxyJump none\n"
        " IdentityAgent none\n UserKnownHostsFile none\n GlobalKnownHostsFile none\n",
        expect={
            "identity_files": (),
            "proxy_command": "",
            "proxy_jump": None,
            "identity_agent": "none",
            "user_known_hosts": (),
            "global_known_hosts": (),
        },
    ),
    Case(
        "known hosts with blanks",
        'Host box\n UserKnownHostsFile "/a b/c" ~/d\n GlobalKnownHostsFile /e\n',
        expect={
            "user_known_hosts": ("/a b/c", "{home}/d"),
            "global_known_hosts": ("/e",),
        },
    ),
    Case(
        "ProxyCommand with tokens and quotes",
        "Host box\n ProxyCommand nc -x 'a b' \"%h\" %p %r %n %% # not a comment\n",
        expect={"proxy_command": "nc -x 'a b' \"box\" 22 {me} box % # not a comment"},
    ),
    Case(
        "ProxyJump before ProxyCommand",
        "Host box\n ProxyJump j\n ProxyCommand nc %h\n",
        expect={"proxy_command": ""},
    ),
    Case(
        "ProxyCommand before ProxyJump",
        "Host box\n ProxyCommand nc %h\n ProxyJump j\n",
        expect={"proxy_jump": None, "proxy_command": "nc box"},
    ),
    Case(
        "lists that replace",
        "Host box\n Ciphers aes128-ctr,aes256-ctr\n MACs hmac-sha2-256\n",
    ),
    Case("a list with +", "Ciphers +aes128-cbc\n", alone="ciphers"),
    Case("a list with -", "KexAlgorithms -diffie*\n", alone="kexalgorithms"),
    Case("a list with ^", "HostKeyAlgorithms ^rsa-sha2-512\n", alone="hostkeyalg"),
    Case(
        "a list that can't be",
        "Ciphers rot13\n",
        fails="rot13",
        alone="is told when it connects",
    ),
    Case(
        "spans of time",
        "ConnectTimeout 1m30s\nServerAliveInterval 2h\nServerAliveCountMax 5\n",
        expect={
            "connect_timeout": 90.0,
            "keepalive_seconds": 7200.0,
            "keepalive_misses": 5,
        },
    ),
    Case("IPv6", "Host ::1\n Port 5\n", "::1", {"hostname": "::1", "port": 5}),
    Case(
        "a URL",
        "Host box\n Port 9\n User bob\n",
        "ssh://ann@box:5",
        {"port": 5, "user": "ann"},
    ),
    Case("a port in the target", "Host box\n Port 9\n", "box:5", {"port": 5}),
    Case(
        "HostKeyAlias",
        "Host box\n HostKeyAlias farm\n HostName 10.0.0.1\n UserKnownHostsFile /k/%k\n",
        expect={"host_key_alias": "farm", "user_known_hosts": ("/k/farm",)},
    ),
    Case(
        "what is checked of a key",
        "Host box\n StrictHostKeyChecking accept-new\n HashKnownHosts yes\n"
        " CheckHostIP yes\n UpdateHostKeys ask\n RevokedHostKeys /r\n"
        " NoHostAuthenticationForLocalhost yes\n RequiredRSASize 3072\n"
        " KnownHostsCommand /bin/keys %H %t %u %%\n",
        expect={
            "host_key_checking": "accept-new",
            "hash_known_hosts": True,
            "check_host_ip": True,
            "update_host_keys": "ask",
            "revoked_host_keys": ("/r",),
            "no_host_authentication_for_localhost": True,
            "required_rsa_size": 3072,
            "known_hosts_command": "/bin/keys %H %t {me} %%",
        },
    ),
    Case(
        "SetEnv and SendEnv",
        'Host box\n SetEnv A="b c" D=e=f\n SetEnv G=h\n SendEnv X HF_*\n',
        expect={
            "environment": (
                ("HF_CORPUS", "/from-the-environment"),
                ("A", "b c"),
                ("D", "e=f"),
            )
        },
    ),
    Case(
        "SendEnv with a dash takes back",
        "Host box\n SendEnv HF_CORPUS\nHost *\n SendEnv -HF_C*\n",
        expect={"environment": ()},
    ),
    Case(
        "agents",
        "Host box\n IdentityAgent $HF_CORPUS\n ForwardAgent yes\n",
        expect={"identity_agent": "/from-the-environment", "forward_agent": "yes"},
    ),
    Case(
        "an agent by its path",
        "Host box\n IdentityAgent ~/agent\n ForwardAgent /tmp/%u\n",
        expect={"identity_agent": "{home}/agent", "forward_agent": "/tmp/{me}"},
    ),
    Case(
        "how the connection is made",
        "Host box\n BindAddress 127.0.0.1\n BindInterface lo\n AddressFamily inet\n"
        " ConnectionAttempts 3\n TCPKeepAlive no\n IPQoS af21 cs1\n"
        " RekeyLimit 1G 1h\n Compression yes\n",
        expect={"bind_address": "127.0.0.1", "address_family": "inet"},
    ),
    Case(
        "ways to log in",
        "Host box\n PreferredAuthentications password,publickey\n"
        " PubkeyAuthentication no\n",
        expect={"methods": ("password",)},
    ),
    Case(
        "a program after the login",
        "Host box\n PermitLocalCommand yes\n LocalCommand echo '%h' %T\n",
        expect={"local_command": "echo 'box' NONE"},
    ),
    Case("it must be permitted", "LocalCommand echo\n", expect={"local_command": ""}),
    Case(
        "RequestTTY and RemoteCommand",
        "Host box\n RequestTTY force\n RemoteCommand ls -l\n SessionType none\n",
        expect={
            "request_tty": "force",
            "remote_command": "ls -l",
            "session_type": "none",
        },
    ),
    Case(
        "old names of options",
        "ChallengeResponseAuthentication no\nPubkeyAcceptedKeyTypes ssh-ed25519\n",
    ),
)
