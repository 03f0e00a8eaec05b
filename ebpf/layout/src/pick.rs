//! How a socket without a connection picks a slot.

/// The word by which a socket picks a slot of a table: it stays the same until the table changes.
///
/// Two rounds of multiply and shift (the constants are MurmurHash3's finaliser), so that neighbouring cookies, which
/// sockets made one after the other have, spread over the whole word.
#[inline(always)]
pub const fn socket_word(cookie: u64, service: u32, generation: u16) -> u32 {
    let table = (service as u64) << 16 | generation as u64;
    let mut word = cookie ^ table.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ word >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    word = (word ^ word >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    (word >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::socket_word;

    /// How far the counts of `words` in 16 equal parts of the range are from even, at most.
    fn unevenness(words: impl Iterator<Item = u32>) -> u32 {
        let mut hits = [0_u32; 16];
        words.for_each(|word| hits[(word >> 28) as usize] += 1);
        let mean = hits.iter().sum::<u32>() / 16;
        hits.into_iter().map(|hit| hit.abs_diff(mean)).max().unwrap_or(0)
    }

    // 16,000 words: a part has 1,000 with a standard deviation of 31; five of them are 155.
    #[test]
    fn neighbours_are_spread_evenly() {
        assert!(unevenness((0..16_000).map(|cookie| socket_word(cookie, 7, 3))) < 155, "by cookie");
        assert!(unevenness((0..16_000).map(|service| socket_word(4097, service, 3))) < 155, "by service");
        assert!(unevenness((0..4_096).map(|generation| socket_word(4097, 7, generation))) < 78, "by generation");
    }

    #[test]
    fn a_change_of_the_table_moves_most_sockets() {
        let slot = |cookie, generation| (u64::from(socket_word(cookie, 7, generation)) * 10) >> 32;
        let stayed = (0..10_000).filter(|cookie| slot(*cookie, 1) == slot(*cookie, 2)).count();
        assert!((850..1_150).contains(&stayed), "a tenth would stay by chance: {stayed}");
    }
}
