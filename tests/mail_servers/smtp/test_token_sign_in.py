"""Sign-in with an access token: what is sent when, what the mail server says of a token, and what is never revealed."""

import base64
import json
from dataclasses import dataclass, field, replace
from itertools import pairwise
from urllib.parse import quote

import psycopg
import pytest

from portal.mail_servers.smtp.client import AuthMode, SmtpSettings
from portal.mail_servers.smtp.connect import settings_failure
from portal.mail_servers.smtp.outcome import BUSY, Pause, ReplyKind, SmtpFailure, SmtpReply, Stage, classify
from portal.mail_servers.smtp.sasl import TokenCredentials, describe_error, oauthbearer
from tests.mail_servers.example_message import ANN, pause_after, send, settings
from tests.smtp_peer import MAX_COMMAND_LENGTH, Script, SmtpPeer, closed_port

MAILBOX = "pbx@acme.example"
# As long as Microsoft's, in the characters of a JSON Web Token.
TOKEN = "eyJ0eXAi.Q7x_" + "".join(chr(ord("a") + (i * i + i // 7) % 26) for i in range(2500)) + "-Zz9.k3Yq0PfW"
STALE, WRONG = "stale." + TOKEN[::-1], "wrong." + TOKEN[5:500]
REJECTED = SmtpFailure(SmtpReply(ReplyKind.SETTINGS, Stage.TOKEN, None, None, "AADSTS700082: The token has expired."))
MECHANISMS = ["XOAUTH2", "OAUTHBEARER"]


@dataclass
class Tokens:
    """Gives one token after the other."""

    tokens: list[str | SmtpFailure]
    mailbox_provider: str = "google"
    rejected: list[str | None] = field(default_factory=list)

    def access_token(self, *, rejected: str | None = None) -> str:
        self.rejected.append(rejected)
        token = self.tokens.pop(0)
        if isinstance(token, SmtpFailure):
            raise token
        return token


def oauth_settings(peer: SmtpPeer, *tokens: str | SmtpFailure, mailbox: str = MAILBOX) -> SmtpSettings:
    source = Tokens(list(tokens or [TOKEN]))
    return settings(peer, auth_mode=AuthMode.OAUTH, username=mailbox, token_source=source)


def server(*mechanisms: str, script: Script | None = None, mailbox: str = MAILBOX) -> SmtpPeer:
    return SmtpPeer(script, accounts={mailbox: TOKEN}, mechanisms=" ".join(mechanisms or MECHANISMS))


def all_verbs(peer: SmtpPeer) -> list[list[str]]:
    return [conversation.verbs for conversation in peer.conversations]


# On the wire


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_the_token_follows_the_command_on_a_line_of_its_own(mechanism: str) -> None:
    with server("PLAIN", "LOGIN", mechanism) as peer:
        reply = send(oauth_settings(peer))[ANN]
    (conversation,) = peer.conversations
    assert (reply.kind, conversation.signed_in_as) == (ReplyKind.ACCEPTED, MAILBOX)
    ehlo, command, response, mail, *_ = conversation.commands
    assert command == f"AUTH {mechanism}"
    assert TOKEN.encode() in base64.b64decode(response, validate=True)
    assert (ehlo[:4].upper(), mail[:4]) == ("EHLO", "MAIL")
    assert len(response) > MAX_COMMAND_LENGTH
    assert all(len(line) <= MAX_COMMAND_LENGTH for line in conversation.commands if line != response)


def test_xoauth2_is_used_if_both_are_offered() -> None:
    with server("OAUTHBEARER", "XOAUTH2") as peer:
        send(oauth_settings(peer))
    assert peer.conversations[0].commands[1] == "AUTH XOAUTH2"


def test_a_mailbox_with_characters_that_oauthbearer_escapes() -> None:
    credentials = TokenCredentials("a,b=c@acme.example", "T", "smtp.acme.example", 587)
    expected = b"n,a=a=2Cb=3Dc@acme.example,\1host=smtp.acme.example\1port=587\1auth=Bearer T\1\1"
    assert oauthbearer(credentials) == (expected, b"\1")


@pytest.mark.parametrize(
    ("mechanisms", "text"),
    [
        (["PLAIN", "LOGIN"], "The mail server does not offer OAuth 2.0."),
        (["X-NOTHING"], "The mail server does not offer OAuth 2.0."),
        ([""], "The mail server offers no sign-in."),
    ],
)
def test_a_mail_server_without_these_mechanisms(mechanisms: list[str], text: str) -> None:
    with server(*mechanisms) as peer:
        result = send(oauth_settings(peer))
    assert result[ANN] == SmtpReply(ReplyKind.SETTINGS, Stage.AUTH, None, None, text)
    assert (pause_after(result), peer.conversations[0].verbs) == (Pause.NONE, ["EHLO", "QUIT"])


def test_an_automatic_sign_in_never_uses_a_token() -> None:
    with server() as peer:
        reply = send(replace(oauth_settings(peer), auth_mode=AuthMode.AUTO, password="geheim"))[ANN]
    assert reply.text == "The mail server offers only XOAUTH2, OAUTHBEARER."


# Tokens


def test_without_a_token_nobody_connects() -> None:
    with server() as peer:
        result = send(oauth_settings(peer, REJECTED))
    assert (result[ANN], pause_after(result)) == (REJECTED.reply, Pause.UNTIL_SAVED)
    assert not peer.conversations


@pytest.mark.parametrize("missing", [{"token_source": None}, {"username": None}])
def test_a_mailbox_that_is_not_connected(missing: dict[str, None]) -> None:
    with server() as peer:
        reply = send(replace(oauth_settings(peer), **missing))[ANN]  # type: ignore[arg-type]
    assert reply == settings_failure(Stage.TOKEN, "No mailbox is connected.").reply
    assert not peer.conversations


def test_a_token_of_a_dead_mail_server_is_fetched_once() -> None:
    with server() as peer, closed_port() as port:
        to = replace(oauth_settings(peer), port=port)
        assert send(to)[ANN].stage is Stage.CONNECT
    assert isinstance(to.token_source, Tokens)
    assert to.token_source.rejected == [None]


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_rejected_token_is_renewed_once_in_a_new_session(mechanism: str) -> None:
    with server(mechanism) as peer:
        to = oauth_settings(peer, STALE, TOKEN)
        assert send(to)[ANN].kind is ReplyKind.ACCEPTED
    assert isinstance(to.token_source, Tokens)
    assert to.token_source.rejected == [None, STALE]
    first, second = peer.conversations
    _, command, response, end, quit_command = first.commands
    assert (command, quit_command) == (f"AUTH {mechanism}", "QUIT")
    assert STALE.encode() in base64.b64decode(response)
    assert end == {"XOAUTH2": "", "OAUTHBEARER": "AQ=="}[mechanism], "the response to the error"
    assert TOKEN.encode() in base64.b64decode(second.commands[2])
    assert second.signed_in_as == MAILBOX


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_two_rejected_tokens_are_a_settings_failure_that_says_why(mechanism: str) -> None:
    with server(mechanism) as peer:
        result = send(oauth_settings(peer, STALE, WRONG))
    reply = result[ANN]
    assert (reply.kind, reply.stage, reply.code, reply.enhanced_code, pause_after(result)) == (
        ReplyKind.SETTINGS,
        Stage.AUTH,
        535,
        "5.7.8",
        Pause.UNTIL_SAVED,
    )
    assert reply.text == f"wrong username or password ({mechanism}: status 401, schemes bearer, scope mail)"
    assert [(verbs.count("AUTH"), verbs[-1]) for verbs in all_verbs(peer)] == [(1, "QUIT"), (1, "QUIT")]


def test_a_server_that_ends_the_session_after_a_rejected_token() -> None:
    with server(script={"auth": ["334 ", "535 5.7.8 no\n421 4.7.0 bye"]}) as peer:
        result = send(oauth_settings(peer, STALE, TOKEN))
    assert (result[ANN].code, len(peer.conversations)) == (535, 2)


def test_the_same_token_is_not_sent_twice() -> None:
    with server() as peer:
        assert send(oauth_settings(peer, STALE, STALE))[ANN].code == 535
    assert [verbs.count("AUTH") for verbs in all_verbs(peer)] == [1]


def test_a_token_that_cannot_be_renewed_is_the_failure() -> None:
    with server() as peer:
        assert send(oauth_settings(peer, STALE, REJECTED))[ANN] == REJECTED.reply
    assert peer.conversations[0].verbs[-1] == "QUIT"


@pytest.mark.parametrize(
    ("reply", "kind"), [("454 4.7.0 Too many login attempts", "temporary"), ("534 5.7.9 no", "settings")]
)
def test_another_reply_renews_nothing(reply: str, kind: str) -> None:
    with server(script={"auth": reply}) as peer:
        result = send(oauth_settings(peer))[ANN]
    assert (result.kind, peer.conversations[0].verbs.count("AUTH")) == (kind, 1)


@pytest.mark.parametrize(
    ("script", "text"),
    [
        # Microsoft rejects at once, some servers already the command.
        (["334 ", "535 5.7.3 Authentication unsuccessful"], "Authentication unsuccessful (XOAUTH2)"),
        (["535 5.7.3 Authentication unsuccessful"], "Authentication unsuccessful (XOAUTH2)"),
        (["334 ", "334 e30=", "535 5.7.8 no"], "no (XOAUTH2)"),
        (["334 ", "334 ", "334 "], "The mail server sent an unexpected reply."),
    ],
)
def test_where_the_server_rejects_a_token(script: list[str], text: str) -> None:
    with server(script={"auth": script}) as peer:
        assert send(oauth_settings(peer, TOKEN, TOKEN))[ANN].text == text


@pytest.mark.parametrize(
    ("challenge", "text"),
    [
        (b'{"status":"401","schemes":"bearer","scope":"mail"}', "status 401, schemes bearer, scope mail"),
        (b'{"status":"invalid_token"}', "status invalid_token"),
        (b'{"status":400,"scope":"https://mail.google.com/"}', "status 400, scope https://mail.google.com/"),
        (b'{"scope":null,"schemes":["bearer"],"status":{}}', ""),
        (json.dumps({"status": "x" * 5000}).encode(), "status " + "x" * 100),
        (b'{"other":"x"}', ""),
        (b"[" * 6000, ""),
        (b'{"status":' * 700, ""),
        (b'{"status":' + b"9" * 6000 + b"}", ""),
        (b'["status"]', ""),
        (b"status 401", ""),
        (b"\xff\xfe", ""),
        (b"", ""),
    ],
)
def test_what_an_error_says(challenge: bytes, text: str) -> None:
    assert describe_error(challenge) == text


# Secrets


FORMS = {
    "as it is": TOKEN,
    "in lower case": TOKEN.lower(),
    "for a URL": quote(TOKEN, safe=""),
    "in Base64": base64.b64encode(TOKEN.encode()).decode(),
    "in Base64 without its end": base64.b64encode(TOKEN.encode()).decode().rstrip("="),
}


@pytest.mark.parametrize("step", ["greeting", "ehlo", "auth", "mail", "rcpt", "dot"])
@pytest.mark.parametrize("form", FORMS)
def test_a_token_that_the_server_repeats_is_masked_whole(form: str, step: str) -> None:
    with server(script={step: f"554 5.7.1 (session of {FORMS[form]})"}) as peer:
        reply = send(oauth_settings(peer))[ANN]
    assert reply.stage is (Stage.DATA if step == "dot" else Stage(step))
    expected = {
        "greeting": "The mail server rejected the connection.",
        "auth": "(session of […]) (XOAUTH2)",
    }
    assert reply.text == expected.get(step, "(session of […])")


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_what_was_sent_is_masked_whole_and_in_parts(mechanism: str) -> None:
    with server(mechanism) as peer:
        send(oauth_settings(peer))
        sent = peer.conversations[0].commands[2]
        peer.script = {"auth": f"500 5.5.1 {sent} or {sent[100:180]} or {TOKEN[20:60]} is wrong"}
        text = send(oauth_settings(peer))[ANN].text
    assert text == f"[…] or […] or […] is wrong ({mechanism})"


def test_a_token_in_the_error_is_masked_and_so_is_the_renewed_one() -> None:
    error = base64.b64encode(json.dumps({"status": STALE[6:80], "scope": f"for {WRONG[20:90]}"}).encode()).decode()
    script = ["334 ", f"334 {error}", "535 5.7.8 no"]
    with server(script={"auth": script}) as peer:
        text = send(oauth_settings(peer, STALE, WRONG))[ANN].text
    for token in (STALE, WRONG):
        pieces = {token[start:end] for start, end in pairwise(range(0, len(token), 8))}
        assert not [piece for piece in pieces if piece in text]


def test_a_rejected_token_stays_masked_in_the_next_session() -> None:
    script = ["334 ", "535 5.7.8 no"]
    with server(script={"auth": script}) as peer:
        script[1] = f"535 5.7.8 neither {STALE[40:90]} nor {STALE} nor {TOKEN}"
        text = send(oauth_settings(peer, STALE, TOKEN))[ANN].text
    assert text == "neither […] nor […] nor […] (XOAUTH2)"


def test_no_token_is_in_a_repr() -> None:
    credentials = TokenCredentials(MAILBOX, TOKEN, "h", 587)
    assert TOKEN not in repr(credentials) + str(credentials) + f"{credentials}"


def test_without_postgres_there_is_no_token() -> None:
    class NoTokens(Tokens):
        def access_token(self, *, rejected: str | None = None) -> str:
            raise psycopg.OperationalError

    with server() as peer:
        result = send(replace(oauth_settings(peer), token_source=NoTokens([])))
    assert (result[ANN], pause_after(result), peer.conversations) == (BUSY, Pause.NONE, [])


def test_a_failed_token_server_pauses_the_mail_server() -> None:
    failure = SmtpFailure(classify(Stage.TOKEN, None, "No response in time."))
    with server() as peer:
        result = send(oauth_settings(peer, failure))
    assert (result[ANN].kind, pause_after(result)) == (ReplyKind.TEMPORARY, Pause.BRIEF)
