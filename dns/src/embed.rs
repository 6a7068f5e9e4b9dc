//! Our answers inside somebody else's `hickory-server`: its [`RequestHandler`] around the same `answer()`. It is how
//! transports that the library serves well (DNS over QUIC) will reach it, and how others embed us. Its catalog is not
//! involved: that would write its own OPT.

use std::sync::Arc;

use hickory_proto::op::{Header, HeaderCounts, Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_server::net::runtime::Time;
use hickory_server::net::xfer::Protocol;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;

use crate::metrics::Transport;
use crate::{Responder, wire};

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
        let source = wire::source(request.src().ip());
        let transport = if request.protocol() == Protocol::Udp { Transport::Udp } else { Transport::Tcp };
        let sent = match wire::read_query(request.as_slice()) {
            wire::Read::Query(query) => {
                let answer = self.0.answer(&query, source, transport);
                let edns = wire::answer_edns(&query, &answer);
                let mut metadata = Metadata::response_from_request(&request.metadata);
                metadata.response_code = answer.code;
                metadata.authoritative = answer.authoritative;
                let mut builder = MessageResponseBuilder::from_message_request(request);
                if let Some(edns) = &edns {
                    builder.edns(edns);
                }
                let (answers, authority) = (&answer.answers, &answer.authority);
                handle
                    .send_response(builder.build(metadata, answers, authority, [], &answer.additional))
                    .await
            }
            wire::Read::Refuse(reply) => {
                let reply = Message::from_vec(&reply).unwrap_or_else(|_| Message::query());
                let mut builder = MessageResponseBuilder::from_message_request(request);
                if let Some(edns) = &reply.edns {
                    builder.edns(edns);
                }
                handle.send_response(builder.error_msg(&request.metadata, reply.metadata.response_code)).await
            }
            wire::Read::Ignore => {
                let builder = MessageResponseBuilder::from_message_request(request);
                handle.send_response(builder.error_msg(&request.metadata, ResponseCode::FormErr)).await
            }
        };
        sent.unwrap_or_else(|error| {
            tracing::debug!(%error, "sending an answer through hickory-server");
            let metadata = Metadata::new(request.metadata.id, MessageType::Response, OpCode::Query);
            Header { metadata, counts: HeaderCounts::default() }.into()
        })
    }
}
