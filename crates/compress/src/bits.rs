//! Codes of a few bits, packed.

/// `codes` one after the other, the first in the lowest bits of the first byte: ⌈n b / 8⌉ bytes.
pub fn pack(codes: impl IntoIterator<Item = u8>, bits: u32) -> Vec<u8> {
    let (mut bytes, mut held, mut count) = (Vec::new(), 0_u32, 0);
    for code in codes {
        held |= u32::from(code) << count;
        count += bits;
        while count >= 8 {
            bytes.push(held as u8);
            held >>= 8;
            count -= 8;
        }
    }
    if count > 0 {
        bytes.push(held as u8);
    }
    bytes
}

/// The first `count` codes of `bits` bits in `bytes`; none if there are fewer.
pub fn unpack(bytes: &[u8], bits: u32, count: usize) -> Option<Vec<u8>> {
    let (mut codes, mut held, mut have, mut bytes) = (Vec::with_capacity(count), 0_u32, 0, bytes.iter());
    let mask = (1_u32 << bits) - 1;
    for _ in 0..count {
        while have < bits {
            held |= u32::from(*bytes.next()?) << have;
            have += 8;
        }
        codes.push((held & mask) as u8);
        held >>= bits;
        have -= bits;
    }
    Some(codes)
}

/// `codes` in words of 32 bits, ⌊32 / b⌋ to a word, the first in the lowest bits; what is left of a word is 0.
pub fn pack_words(codes: &[u8], bits: u32) -> Vec<i32> {
    let word = |codes: &[u8]| codes.iter().rev().fold(0_u32, |word, &code| word << bits | u32::from(code)) as i32;
    codes.chunks(per_word(bits)).map(word).collect()
}

/// The first `count` codes of `bits` bits in `words`; none if there are fewer.
pub fn unpack_words(words: &[i32], bits: u32, count: usize) -> Option<Vec<u8>> {
    let (per, mask) = (per_word(bits), (1_u32 << bits) - 1);
    (0..count)
        .map(|i| words.get(i / per).map(|&word| (word as u32 >> (bits * (i % per) as u32) & mask) as u8))
        .collect()
}

/// Codes of `bits` bits in a word.
pub fn per_word(bits: u32) -> usize {
    (32 / bits) as usize
}
