//! What the server answers to each option, once its data is there.

use bytes::{BufMut, BytesMut};

use super::{ExportDirectory, Negotiated, Refusal, ServerHandshake};
use crate::codec::Codec;
use crate::constants::EXPORT_NAME_ZEROES;
use crate::flags::{ClientFlags, TransmissionFlags};
use crate::info::{ExportInfo, Info, InfoType};
use crate::meta_context::{MetaContext, MetaContextSet};
use crate::option::{
    BadOption, InfoRequest, MetaContextRequest, OptionCode, OptionReplyType, check_string,
    encode_reply, encode_string,
};

impl From<BadOption> for Refusal {
    fn from(error: BadOption) -> Self {
        Self::invalid(error.to_string())
    }
}

impl ServerHandshake {
    /// Looks up the export of an EXPORT_NAME.
    pub(super) fn open(
        &self,
        name: &[u8],
        exports: &dyn ExportDirectory,
    ) -> Result<Negotiated, Refusal> {
        let name = check_string(name)?;
        Ok(self.negotiated(name, exports.find(name)?))
    }

    /// INFO and GO: the same answers, so that a GO after an INFO tells the client nothing new.
    pub(super) fn info(
        &self,
        option: OptionCode,
        data: &[u8],
        exports: &dyn ExportDirectory,
        output: &mut BytesMut,
    ) -> Result<Negotiated, Refusal> {
        let request = InfoRequest::decode(data)?;
        let negotiated = self.negotiated(request.export, exports.find(request.export)?);
        let info = &negotiated.info;
        let wants = |kind| request.wanted.contains(&kind);
        let mut say = |info: Info<'_>| {
            encode_reply(output, option, OptionReplyType::INFO, |out| {
                info.encode(out)
            })
        };
        say(Info::Export {
            size: info.size,
            flags: info.flags,
        });
        if wants(InfoType::NAME) {
            say(Info::Name(info.name.as_bytes()));
        }
        if wants(InfoType::DESCRIPTION) && !info.description.is_empty() {
            say(Info::Description(info.description.as_bytes()));
        }
        if wants(InfoType::BLOCK_SIZE) {
            say(Info::BlockSize(info.block_sizes));
        }
        Ok(negotiated)
    }

    /// SET_META_CONTEXT: selects contexts by their full names, for one export.
    pub(super) fn set_meta_context(
        &mut self,
        data: &[u8],
        exports: &dyn ExportDirectory,
        output: &mut BytesMut,
    ) -> Result<(), Refusal> {
        debug_assert!(
            self.session.selected.is_none(),
            "the former set went with the option's header"
        );
        if !self.session.reply_style.is_structured() {
            return Err(Refusal::invalid(
                "SET_META_CONTEXT needs STRUCTURED_REPLY first",
            ));
        }
        let request = MetaContextRequest::decode(data)?;
        let offered = exports.find(request.export)?.meta_contexts;
        let selected = request
            .queries
            .iter()
            .map(|query| MetaContextSet::selected_by(query))
            .fold(MetaContextSet::EMPTY, MetaContextSet::union)
            .intersection(offered);
        for context in selected.iter() {
            encode_meta_context(OptionCode::SET_META_CONTEXT, context, context.id(), output);
        }
        self.session.selected = Some((request.export.to_owned(), selected));
        Ok(())
    }

    /// What transmission would begin with if it began now, with this export.
    fn negotiated(&self, name: &str, mut info: ExportInfo) -> Negotiated {
        info.flags |= TransmissionFlags::HAS_FLAGS;
        if !self.session.reply_style.is_structured() {
            info.flags = info.flags.difference(TransmissionFlags::SEND_DF);
        }
        let meta_contexts = match &self.session.selected {
            Some((export, selected)) if export == name => selected.intersection(info.meta_contexts),
            _ => MetaContextSet::EMPTY,
        };
        Negotiated {
            export: name.to_owned(),
            info,
            reply_style: self.session.reply_style,
            meta_contexts,
            no_zeroes: self.client_flags.contains(ClientFlags::NO_ZEROES),
            tls: self.tls,
        }
    }
}

/// EXPORT_NAME's answer.
pub(super) fn export_name(negotiated: &Negotiated, output: &mut BytesMut) {
    negotiated.info.size.encode(output);
    negotiated.info.flags.encode(output);
    if !negotiated.no_zeroes {
        output.put_bytes(0, EXPORT_NAME_ZEROES);
    }
}

/// LIST: a SERVER for each export.
pub(super) fn list(exports: &dyn ExportDirectory, output: &mut BytesMut) -> Result<(), Refusal> {
    exports.list(&mut |name, description| {
        encode_reply(output, OptionCode::LIST, OptionReplyType::SERVER, |out| {
            encode_string(out, name);
            out.put_slice(description.as_bytes());
        });
    })
}

/// LIST_META_CONTEXT: a META_CONTEXT for each context that a query names, or for all if there is no query.
///
/// It doesn't ask for structured replies: only a client that selects what it found needs them.
pub(super) fn list_meta_context(
    data: &[u8],
    exports: &dyn ExportDirectory,
    output: &mut BytesMut,
) -> Result<(), Refusal> {
    let request = MetaContextRequest::decode(data)?;
    let offered = exports.find(request.export)?.meta_contexts;
    let listed = if request.queries.is_empty() {
        MetaContextSet::ALL
    } else {
        request
            .queries
            .iter()
            .map(|query| MetaContextSet::listed_by(query))
            .fold(MetaContextSet::EMPTY, MetaContextSet::union)
    };
    for context in listed.intersection(offered).iter() {
        // The id is reserved when listing.
        encode_meta_context(OptionCode::LIST_META_CONTEXT, context, 0, output);
    }
    Ok(())
}

fn encode_meta_context(option: OptionCode, context: MetaContext, id: u32, output: &mut BytesMut) {
    encode_reply(output, option, OptionReplyType::META_CONTEXT, |out| {
        id.encode(out);
        out.put_slice(context.wire_name().as_bytes());
    });
}
