"""Reads replies, one a line in hexadecimal, and says which of them dnspython cannot parse and write again without loss.

Only replies to queries: it does not know all other operations. It compresses names whatever their letter case, so letter case
is not compared."""

import sys

import dns.exception
import dns.message

for number, line in enumerate(sys.stdin, 1):
    wire = bytes.fromhex(line.strip())
    if wire[2] >> 3 & 15 != 0:
        continue
    try:
        message = dns.message.from_wire(wire, one_rr_per_rrset=True)
        again = dns.message.from_wire(message.to_wire(max_size=65535), one_rr_per_rrset=True)
    except (dns.exception.DNSException, ValueError, IndexError) as error:
        print(f"{number}: {type(error).__name__}: {error}: {wire.hex()}")
        continue
    if message != again or message.to_text().lower() != again.to_text().lower():
        print(f"{number}: differs after writing again: {wire.hex()}")
