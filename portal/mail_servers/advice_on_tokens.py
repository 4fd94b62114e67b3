"""Advice about access tokens (OAuth 2.0): what a provider's error means and what to do about it.

Microsoft's numbers are from "Microsoft Entra authentication and authorization error codes", the words from RFC 6749,
section 5.2, and from Google's "Using OAuth 2.0 for server to server applications".
"""

from typing import Final

from portal.mail_servers.advice import Advice, at
from portal.web.i18n import to_translate

TOKENS: Final = tuple(
    at(
        ("token",),
        Advice(
            "The app has no consent: an administrator of the Microsoft 365 organisation has to consent to it. Then "
            "sign in again.",
            words=r"AADSTS(65001|65004|90094|90095|900941)\b",
        ),
        Advice(
            "Microsoft requires multi-factor authentication: sign in again, or connect an app that needs no person.",
            words=r"AADSTS(50072|50074|50076|50078|50079)\b",
        ),
        Advice(
            "The sign-in has expired, or the password was changed: sign in again on the mail server page.",
            words=r"AADSTS(50089|50133|50173|70008|700082|700084)\b",
        ),
        Advice(
            "The client secret is wrong: enter the secret's Value, not its ID.",
            words=r"AADSTS(7000215|7000218)\b",
        ),
        Advice(
            "The client secret has expired: create a new one in the app registration and enter it.",
            words=r"AADSTS7000222\b",
        ),
        Advice(
            "Microsoft does not accept the certificate: upload the same one to the app registration, and check whether "
            "it has expired.",
            words=r"AADSTS(700024|700027|7000272)\b",
        ),
        Advice(
            "The client ID or the directory is wrong: copy both from the overview of the app registration.",
            words=r"AADSTS(700016|700038|90002|90013|900023|50059)\b",
        ),
        Advice(
            "Conditional Access blocks the portal: an administrator of the Microsoft 365 organisation has to allow the "
            "app, or connect an app that needs no person.",
            words=r"AADSTS(53000|53001|53003|530003|530035)\b",
        ),
        Advice(
            "The account is blocked or does not exist in this directory: check it in the Microsoft 365 admin centre.",
            words=r"AADSTS(50020|50034|50053|50057|51004|90072)\b",
        ),
        Advice(
            "The Workspace administrator requires a new sign-in at intervals: allow the app without it in the Google "
            "Admin console, or connect a service account.",
            words=r"invalid_rapt",
        ),
        Advice(
            "Domain-wide delegation is missing: a super administrator has to allow the service account's client ID for "
            "the scope https://mail.google.com/ in the Google Admin console.",
            words=r"Google rejected access: (unauthorized_client|access_denied)",
        ),
        Advice(
            "The client ID or the client secret is wrong: copy both from the Google Cloud console.",
            words=r"Google rejected access: (invalid_client|deleted_client|org_internal)",
        ),
        Advice(
            "Access was revoked or has expired: sign in again. An app of type External that is in testing loses its "
            "access after 7 days: publish it, or make it Internal.",
            words=r"Google rejected access: invalid_grant",
        ),
        Advice(
            "Somebody declined, or the account may not allow it: sign in with the account of the mailbox.",
            words=r"(access_denied|consent_required)",
        ),
        Advice("Connect the mailbox on the mail server page.", words=r"No mailbox is connected", kind="settings"),
        Advice(
            "The portal could not get an access token at the moment; it will try again automatically.",
            kind="temporary",
            without_retry=to_translate(
                "The portal could not get an access token at the moment; try again in a minute."
            ),
        ),
        Advice("The connection to the mailbox has ended: sign in again on the mail server page.", kind="settings"),
    )
)
