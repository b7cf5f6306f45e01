"""Sequences of terminals, none of which is text, and some that are broken."""

from __future__ import annotations

BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
HIDDEN = "\u200b\u2060\u2061\u2064\ufeff\u180e\U000e0001\U000e0041\U000e007f"

CSI = [
    *(f"\x1b[{n}m" for n in (0, 1, 4, 7, 31, 39, 97, 107)),
    "\x1b[m",
    "\x1b[38;5;196m",
    "\x1b[48;2;10;20;30m",
    "\x1b[38:2::10:20:30m",
    "\x1b[4:3m",
    "\x1b[>4;2m",
    "\x1b[?4m",
    *(f"\x1b[{n}{final}" for n in ("", "1", "99") for final in "ABCDEFGSTXZ@LMP"),
    *("\x1b[H", "\x1b[5;10H", "\x1b[5;10f", "\x1b[d", "\x1b[3d", "\x1b[`"),
    *("\x1b[J", "\x1b[0J", "\x1b[1J", "\x1b[2J", "\x1b[3J", "\x1b[?2J"),
    *("\x1b[K", "\x1b[1K", "\x1b[2K"),
    *("\x1b[s", "\x1b[u", "\x1b[r", "\x1b[1;24r"),
    *("\x1b[?25l", "\x1b[?25h", "\x1b[?7h", "\x1b[?12l", "\x1b[4h", "\x1b[20l"),
    *("\x1b[?1049h", "\x1b[?1049l", "\x1b[?47h", "\x1b[?47l", "\x1b[?1047h"),
    *("\x1b[?2004h", "\x1b[?2004l", "\x1b[200~", "\x1b[201~"),
    *("\x1b[?1000h", "\x1b[?1002h", "\x1b[?1003h", "\x1b[?1006h", "\x1b[?1015l"),
    *("\x1b[?2026h", "\x1b[?2026l", "\x1b[?1004h", "\x1b[?2031h", "\x1b[?69h"),
    # device queries: a terminal would type the answer
    *("\x1b[c", "\x1b[0c", "\x1b[>c", "\x1b[=c", "\x1b[5n", "\x1b[6n", "\x1b[?6n"),
    *("\x1b[?15n", "\x1b[?996n", "\x1b[>q", "\x1b[>0q", "\x1b[?2026$p", "\x1b[x"),
    *("\x1b[14t", "\x1b[18t", "\x1b[21t", "\x1b[22;0t", "\x1b[8;50;100t", "\x1b[20t"),
    *("\x1b[!p", "\x1b[2 q", '\x1b["q', "\x1b['|", "\x1b[1*x", "\x1b[ @", "\x1b[1 A"),
    *("\x1b[=1;1u", "\x1b[>1u", "\x1b[<u", "\x1b[?u", "\x1b[1;5A", "\x1b[15~"),
    *("\x1b[1i", "\x1b[4i", "\x1b[5i", "\x1b[?5i", "\x1b[0y", "\x1b[2;1y"),
    *("\x1b[1;2;3;4$r", "\x1b[1;1;2;2$z", "\x1b[65;1;1;2;2$x", '\x1b[1"p', "\x1b[3g"),
]
ESCAPES = [
    *("\x1b7", "\x1b8", "\x1bc", "\x1bD", "\x1bE", "\x1bM", "\x1bH", "\x1bZ"),
    *("\x1b=", "\x1b>", "\x1bN", "\x1bO", "\x1b\\", "\x1b6", "\x1b9", "\x1bl", "\x1bm"),
    *("\x1b(B", "\x1b(0", "\x1b)0", "\x1b*A", "\x1b+B", "\x1b-A", "\x1b.A", "\x1b/A"),
    *("\x1b#3", "\x1b#8", "\x1b%G", "\x1b%@", "\x1b F", "\x1b G", "\x1b(%5", "\x1b$(C"),
]
STRINGS = [
    *(f"\x1b]{n};some title{end}" for n in "012" for end in ("\x07", "\x1b\\", "\x9c")),
    *("\x1b]52;c;cm0gLXJmIC8=\x07", "\x1b]52;p;?\x1b\\", "\x1b]52;;!\x07"),
    *("\x1b]8;;http://evil.example\x1b\\", "\x1b]8;id=1;file:///etc/passwd\x07"),
    *("\x1b]8;;\x1b\\", "\x1b]8;;\x07"),
    *(
        "\x1b]4;1;rgb:ff/00/00\x07",
        "\x1b]4;1;?\x07",
        "\x1b]10;?\x07",
        "\x1b]11;?\x1b\\",
    ),
    *("\x1b]104\x07", "\x1b]110\x07", "\x1b]P0ff00aa", "\x1b]R", "\x1b]12;#ff0000\x07"),
    *("\x1b]7;file://host/tmp\x1b\\", "\x1b]9;a note\x07", "\x1b]99;i=1;text\x1b\\"),
    *("\x1b]9;4;1;50\x07", "\x1b]777;notify;title;body\x07", "\x1b]50;?\x07"),
    *("\x1b]133;A\x07", "\x1b]133;D;0\x07", "\x1b]633;E;ls;nonce\x07"),
    *("\x1b]1337;File=inline=1:AAAA\x07", "\x1b]1337;SetMark\x07", "\x1b]3;X=1\x07"),
    *("\x1b]l\x1b\\", "\x1b]Ltitle\x1b\\", "\x1b];\x07", "\x1b]\x07", "\x1b]2;ünï\x07"),
    *("\x1bP$q\x1b\\", "\x1bP$qm\x1b\\", "\x1bP+q544e\x1b\\", "\x1bP1$tx\x1b\\"),
    *("\x1bPq#0;2;0;0;0#0~~@@vv\n@@~~$-\n\x1b\\", "\x1bP0;1|17/ab\x1b\\"),
    *("\x1bP=1s\x1b\\", "\x1bP>|name\x1b\\", "\x1bP1;1{@x\x1b\\"),
    *("\x1b_Ga=T,f=100;AAAA\x1b\\", "\x1b_app\x1b\\", "\x1b_\x1b\\"),
    *("\x1b^private\x1b\\", "\x1bXstart of string\x1b\\", "\x1bkwindow\x1b\\"),
    "\x1bPtmux;\x1b\x1b]52;c;AAAA\x07\x1b\\",
    "\x1bPtmux;\x1b\x1b[5n\x1b\\",
]
C1 = [
    *("\x9b31m", "\x9b6n", "\x9b?1049h", "\x9d0;title\x07", "\x9d52;c;AAAA\x9c"),
    *("\x90q~~\x9c", "\x9fapc\x9c", "\x9epm\x9c", "\x98sos\x9c", "\x9fapc\x1b\\"),
    *("\x84", "\x85", "\x88", "\x8d", "\x8e", "\x8f", "\x9a", "\x9c", "\x80", "\x99"),
]
CONTROLS = [*map(chr, (*range(1, 8), *range(11, 13), *range(14, 27), 28, 31, 127))]
# Each stands between "a" and "b": nothing else may be left.
GONE = [
    *(case.encode() for case in (*CSI, *ESCAPES, *STRINGS, *C1, *CONTROLS)),
    *(case.encode("latin-1") for case in C1),
    *(case.encode() for case in (*BIDI, *HIDDEN)),
]
# Unfinished or broken: what follows must survive.
BROKEN = [
    b"\x1b]0;never ended",
    b"\x1b]52;c;" + b"A" * 10_000,
    b"\x1bPq" + b"~" * 10_000,
    b"\x1b_" + b"x" * 5000,
    b"\x1b]0;one\x1b]0;two\x1b[31mthree",
    b"\x1bX\x1b^\x1b_\x1bP\x1b]\x1bk",
    b"\x9d" + b"y" * 5000,
    b"\xc2\x9d52;c;",
    b"\x90\x90\x90",
    b"\x1b[" + b"1;" * 500,
    b"\x1b[31",
    b"\x1b[1\x1b[2\x1b[",
    b"\x1b[38;5;\xc3\xa9",
    b"\x1b",
    b"\x1b\x1b\x1b",
    b"\x1b(((((((((((",
    b"\x1b]0;title\x18",
    b"\x1bP\x1a",
    b"\x1b]0;\xff\xfe",
    b"\x1b]\x00",
    b"\x1b[\x00\x7f31m",
    b"\xc2",
    b"\xe2\x80",
    b"\xf0\x9f\x98",
    b"\xed\xa0\x80",
    b"\xc0\x9b31m",
    b"\xf8\x88\x80\x80\x80",
    b"\xe2\x80\xae\x1b]8;;x\xe2\x80\xac",
    b"\x1bPtmux;\x1b",
    b"\x1bPtm",
]
