"""Reads replies, one a line in hexadecimal, and says which of them dnspython cannot parse and write again without loss."""

import sys

import dns.exception
import dns.message

for number, line in enumerate(sys.stdin, 1):
    wire = bytes.fromhex(line.strip())
    try:
        message = dns.message.from_wire(wire, one_rr_per_rrset=True)
        again = dns.message.from_wire(message.to_wire(max_size=65535), one_rr_per_rrset=True)
    except (dns.exception.DNSException, ValueError, IndexError) as error:
        print(f"{number}: {type(error).__name__}: {error}: {wire.hex()}")
        continue
    if message != again or message.to_text() != again.to_text():
        print(f"{number}: differs after writing again: {wire.hex()}")
