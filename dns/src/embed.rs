//! Our answers inside somebody else's `hickory-server`: its [`RequestHandler`] around the same
//! [`respond`](Responder::respond). It is how others embed us. Its catalog is not involved: that would write its own OPT.

use std::sync::Arc;

use hickory_proto::op::{Header, HeaderCounts, Message, MessageType, Metadata, OpCode};
use hickory_server::net::runtime::Time;
use hickory_server::net::xfer::Protocol;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;

use crate::{Peer, Responder, Transport};

/// A [`Responder`] as a handler of `hickory-server`.
#[derive(Clone, Debug)]
pub struct Handler(pub Arc<Responder>);

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut handle: R,
    ) -> ResponseInfo {
        let transport = match request.protocol() {
            Protocol::Udp => Transport::Udp,
            Protocol::Tcp => Transport::Tcp,
            // Encrypted, each in its way: padded, and without keepalive.
            _ => Transport::Https,
        };
        let peer = Peer::new(request.src().ip(), transport);
        let reply = self.0.respond(request.as_slice(), peer);
        let sent = match reply.and_then(|reply| Message::from_vec(&reply).ok()) {
            Some(reply) => {
                let mut builder = MessageResponseBuilder::from_message_request(request);
                if let Some(edns) = &reply.edns {
                    builder.edns(edns);
                }
                let (answers, authorities) = (&reply.answers, &reply.authorities);
                handle
                    .send_response(builder.build(
                        reply.metadata,
                        answers,
                        authorities,
                        [],
                        &reply.additionals,
                    ))
                    .await
            }
            None => return nothing(request),
        };
        sent.unwrap_or_else(|error| {
            tracing::debug!(%error, "sending an answer through hickory-server");
            nothing(request)
        })
    }
}

/// What the library wants to hear when nothing was sent.
fn nothing(request: &Request) -> ResponseInfo {
    let metadata = Metadata::new(request.metadata.id, MessageType::Response, OpCode::Query);
    Header { metadata, counts: HeaderCounts::default() }.into()
}
