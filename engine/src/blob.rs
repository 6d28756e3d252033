//! Small named files that are replaced whole: the store's identity, and whatever a core has to remember for good.
//!
//! ```text
//! 0  magic    u32  "QBLB"
//! 4  version  u16  1
//! 6  zero     u16
//! 8  length   u32
//! 12 crc      u32  of the first 12 bytes, the name and the data
//! 16 data, zeros up to a multiple of 4096
//! ```
//!
//! The rule: after [`store`] returned `Ok` the new content survives any crash; until then the old one does.
//!
//! Not here: anything that grows.

use crate::{
    disk::{BLOCK, Disk, File},
    record::number,
};
use std::{io, rc::Rc};

/// The most bytes that a blob holds.
pub const BLOB_BYTES_MAX: usize = 1 << 20;
const MAGIC: u32 = u32::from_le_bytes(*b"QBLB");
const VERSION: u16 = 1;
const HEADER: usize = 16;

fn checksum(head: &[u8], name: &str, data: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&head[..12]);
    hasher.update(name.as_bytes());
    hasher.update(data);
    hasher.finalize()
}

fn file_name(name: &str) -> io::Result<String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("'{name}' is no name for a blob")));
    }
    Ok(format!("{name}.blob"))
}

/// Replaces the blob `name` (lower-case letters, digits and dashes) by `data`.
pub(crate) async fn store<D: Disk>(disk: &D, name: &str, data: &[u8]) -> io::Result<()> {
    let target = file_name(name)?;
    if data.len() > BLOB_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a blob holds 1 MiB at most"));
    }
    let mut buffer = disk.buffer((HEADER + data.len()).next_multiple_of(BLOCK));
    buffer[..4].copy_from_slice(&MAGIC.to_le_bytes());
    buffer[4..6].copy_from_slice(&VERSION.to_le_bytes());
    buffer[8..12].copy_from_slice(&(data.len() as u32).to_le_bytes());
    let checksum = checksum(&buffer, name, data);
    buffer[12..16].copy_from_slice(&checksum.to_le_bytes());
    buffer[HEADER..HEADER + data.len()].copy_from_slice(data);
    let temporary = format!("{target}.tmp");
    let file = disk.open(&temporary, false).await?;
    let length = buffer.len() as u64;
    file.write(Rc::new(buffer), 0).await?;
    file.truncate(length).await?;
    file.sync().await?;
    drop(file);
    disk.rename(&temporary, &target).await?;
    disk.sync_directory().await
}

/// The content of the blob `name`; `None` when there is none. `InvalidData` when it does not validate.
pub(crate) async fn load<D: Disk>(disk: &D, name: &str) -> io::Result<Option<Vec<u8>>> {
    let target = file_name(name)?;
    let Some((_, length)) = disk.list().await?.into_iter().find(|(found, _)| *found == target) else {
        return Ok(None);
    };
    let corrupt = || io::Error::new(io::ErrorKind::InvalidData, format!("{target} is corrupt"));
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if !(BLOCK..=HEADER + BLOB_BYTES_MAX + BLOCK).contains(&length) || !length.is_multiple_of(BLOCK) {
        return Err(corrupt());
    }
    let file = disk.open(&target, false).await?;
    let bytes = file.read(0, length).await?;
    if bytes.len() < HEADER || number::<4>(&bytes, 0) != MAGIC.into() {
        return Err(corrupt());
    }
    let data = bytes.get(HEADER..HEADER + number::<4>(&bytes, 8) as usize).ok_or_else(corrupt)?;
    if number::<4>(&bytes, 12) != checksum(&bytes, name, data).into() {
        return Err(corrupt());
    }
    if number::<2>(&bytes, 4) != VERSION.into() {
        return Err(io::Error::new(io::ErrorKind::Unsupported, format!("{target} has an unknown format")));
    }
    Ok(Some(data.to_vec()))
}
