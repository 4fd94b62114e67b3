"""The words of mails and pages in other languages: a catalogue each. What reads them is `portal.languages`."""
