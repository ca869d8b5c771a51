//! Disk images of other formats, which are served as they are and not as the disks that they describe.

use std::fs::File;
use std::os::unix::fs::FileExt;

/// The formats that have a name in their first bytes: offset, bytes, name.
const FORMATS: [(usize, &[u8], &str); 9] = [
    (0, b"QFI\xfb", "qcow2"),
    (0, b"QED\0", "QED"),
    (0, b"KDMV", "VMDK"),
    (0, b"COWD", "VMDK"),
    (0, b"# Disk DescriptorFile", "VMDK"),
    (0, b"vhdxfile", "VHDX"),
    (0, b"conectix", "VHD"),
    (0, b"<<< Oracle VM VirtualBox Disk Image >>>", "VDI"),
    (0x40, b"\x7f\x10\xda\xbe", "VDI"),
];

/// Where the last of these ends, and some more.
const HEAD_BYTES: usize = 512;

/// What the user of such an image should know.
pub(super) fn remark(file: &File) -> Option<String> {
    let mut head = [0; HEAD_BYTES];
    // A file that can't be read gets no remark; serving it will say why.
    let length = file.read_at(&mut head, 0).ok()?;
    let format = format_of(&head[..length])?;
    Some(format!(
        "this is a {format} image, and clients see it as it is, not the disk inside; \
         `qemu-img convert -O raw` makes a raw image of it, and qemu-nbd serves the disk"
    ))
}

fn format_of(head: &[u8]) -> Option<&'static str> {
    FORMATS
        .iter()
        .find(|(at, magic, _)| head.get(*at..).is_some_and(|rest| rest.starts_with(magic)))
        .map(|(_, _, format)| *format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_known_by_their_first_bytes() {
        assert_eq!(format_of(b"QFI\xfb\0\0\0\x03"), Some("qcow2"));
        assert_eq!(format_of(b"vhdxfileQ\0"), Some("VHDX"));
        let mut vdi = [b'x'; 80];
        vdi[0x40..0x44].copy_from_slice(&[0x7f, 0x10, 0xda, 0xbe]);
        assert_eq!(format_of(&vdi), Some("VDI"));
        assert_eq!(format_of(b"LUKS\xba\xbe"), None, "that is a disk's content");
        assert_eq!(format_of(b"QF"), None);
        assert_eq!(format_of(&[0; HEAD_BYTES]), None);
    }
}
