//! Which of Redis Cluster's 16384 slots a key's name falls into, and which partition that is.
//!
//! The rule: any Redis Cluster client computes the same slot, so this is its CRC16 and its treatment of `{…}`; a
//! partition is a run of adjacent slots. The bucket takes no part.
//!
//! Not here: who owns a partition (`node/ring`).

/// The slots of Redis Cluster.
pub const SLOTS: u16 = 1 << 14;

/// The slot of a key's name. Of a name with `{…}` in it, only what is between the first `{` and the next `}` counts,
/// unless that is nothing: so names can be made to fall into one slot.
#[must_use]
pub fn slot(name: &[u8]) -> u16 {
    crc16(tag(name)) % SLOTS
}

/// The partition that a slot belongs to, of `partitions` (a power of two up to [`SLOTS`]).
#[must_use]
pub fn partition(slot: u16, partitions: u16) -> u16 {
    assert!(
        partitions.is_power_of_two() && partitions <= SLOTS && slot < SLOTS,
        "slot {slot} of {partitions} partitions"
    );
    slot / (SLOTS / partitions)
}

fn tag(name: &[u8]) -> &[u8] {
    let Some(open) = name.iter().position(|&byte| byte == b'{') else { return name };
    let rest = &name[open + 1..];
    match rest.iter().position(|&byte| byte == b'}') {
        Some(close) if close > 0 => &rest[..close],
        _ => name,
    }
}

/// CRC-16/XMODEM: polynomial 0x1021, start 0, no reflection.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| crc << 8 ^ CRC16[usize::from((crc >> 8) as u8 ^ byte)])
}

const CRC16: [u16; 256] = {
    let mut table = [0u16; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = (index as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_xmodem() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(crc16(b""), 0);
    }

    #[test]
    fn slots_as_redis_computes_them() {
        // From `CLUSTER KEYSLOT` of a Redis 7 server.
        for (name, expected) in
            [("foo", 12182), ("bar", 5061), ("hello", 866), ("somekey", 11058), ("123456789", 12739)]
        {
            assert_eq!(slot(name.as_bytes()), expected, "{name}");
        }
    }

    #[test]
    fn tags() {
        for (name, counted) in [
            ("{user1000}.following", "user1000"),
            ("foo{}{bar}", "foo{}{bar}"),
            ("foo{{bar}}zap", "{bar"),
            ("foo{bar}{zap}", "bar"),
            ("foo{bar", "foo{bar"),
            ("}{a}", "a"),
        ] {
            assert_eq!(tag(name.as_bytes()), counted.as_bytes(), "{name}");
        }
    }

    #[test]
    fn a_partition_is_a_run_of_slots() {
        assert_eq!((partition(0, 1024), partition(15, 1024), partition(16, 1024)), (0, 0, 1));
        assert_eq!((partition(16383, 1024), partition(16383, 1), partition(16383, 16384)), (1023, 0, 16383));
    }
}
