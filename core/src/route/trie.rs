//! A path-compressed multibit trie: the longest prefix of an address, in one step for each six bits that tell
//! prefixes apart.
//!
//! A node stands at a depth that is a multiple of six and knows two bitmaps: which prefixes of its own zero to five
//! further bits exist, and in which of its 64 slots there is more. Both index dense arrays by counting bits, as in the
//! tree bitmaps of Eatherton, Varghese and Dittia («Tree bitmap: hardware/software IP lookups with incremental
//! updates», 2004). Where nothing branches there is no node: a slot holds a single prefix, or a node some steps below.
//! So the long prefixes of IPv6 and host routes cost no more than they differ. It knows nothing of addresses and peers.

/// The bits of an address, counted from the highest.
pub(super) trait Bits: Copy + Eq {
    /// Only zeros.
    const ZERO: Self;

    /// The [`STRIDE`] bits from `depth` on; zeros follow the last bit. `depth` is less than the width.
    fn chunk(self, depth: u32) -> u32;

    /// How many of the first bits are those of `other`.
    fn common(self, other: Self) -> u32;

    /// The first `len` bits, and zeros; `len` is less than the width.
    fn truncated(self, len: u32) -> Self;

    /// These bits with `low` in front of position `len`, where zeros are.
    fn with(self, low: u32, len: u32) -> Self;
}

/// Values by prefix.
pub(super) struct Trie<K, T> {
    root: Node<K, T>,
    len: usize,
}

/// The first `len` bits of `bits`; all others are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prefix<K> {
    pub(super) bits: K,
    pub(super) len: u32,
}

struct Node<K, T> {
    /// What everything below has in common; its length is the node's depth.
    prefix: Prefix<K>,
    /// Which prefixes end here: bit `2^n + b` is the one with `b` as its `n` bits beyond the depth.
    ends: u64,
    /// Which slots, by the six bits beyond the depth, have a node, which is at least [`STRIDE`] bits below.
    inner: u64,
    /// Which have a single prefix, as far below. No slot has both.
    outer: u64,
    /// A node for each bit of `inner`, in its order; a step down is one load, for they lie here themselves.
    nodes: Vec<Self>,
    /// A prefix for each bit of `outer`, in its order.
    leaves: Vec<Leaf<K, T>>,
    /// A value for each bit of `ends`, in its order.
    values: Vec<T>,
}

#[derive(Clone, Copy)]
struct Leaf<K, T> {
    prefix: Prefix<K>,
    value: T,
}

impl<K: Bits, T: Copy> Trie<K, T> {
    /// Makes an empty trie.
    pub(super) fn new() -> Self {
        Self { root: Node::new(Prefix { bits: K::ZERO, len: 0 }), len: 0 }
    }

    /// Number of prefixes.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The value of the longest prefix of `address`.
    #[inline]
    pub(super) fn longest(&self, address: K) -> Option<T> {
        self.walk::<false>(address).unwrap_or_else(|| self.walk::<true>(address).flatten())
    }

    /// Walks down along `address`. Without `CHECKED` it looks at the bits that branch and not at those between, and
    /// checks once, where it ends; that may be beside the way, and the answer is `None` then.
    #[inline]
    fn walk<const CHECKED: bool>(&self, address: K) -> Option<Option<T>> {
        let mut node = &self.root;
        let mut best = None;
        loop {
            let chunk = address.chunk(node.prefix.len);
            let ends = node.ends & COVERING[chunk as usize];
            if ends != 0 {
                best = Some((node, ends));
            }
            match node.node(chunk) {
                Some(below) if !CHECKED || below.prefix.covers(address) => node = below,
                Some(_) => break,
                None => match node.leaf(chunk) {
                    Some(leaf) if leaf.prefix.covers(address) => return Some(Some(leaf.value)),
                    _ => break,
                },
            }
        }
        let Some((node, ends)) = best else { return Some(None) };
        if !CHECKED && !node.prefix.covers(address) {
            return None;
        }
        // The highest bit is that of the longest prefix.
        Some(node.values.get(rank(node.ends, ends.ilog2())).copied())
    }

    /// Shows the values of all prefixes of `address`, the shortest first.
    pub(super) fn covering(&self, address: K, visit: &mut impl FnMut(T)) {
        let mut node = &self.root;
        loop {
            let chunk = address.chunk(node.prefix.len);
            for end in ones(node.ends & COVERING[chunk as usize]) {
                visit(node.values[rank(node.ends, end)]);
            }
            match node.node(chunk) {
                Some(below) if below.prefix.covers(address) => node = below,
                Some(_) => return,
                None => {
                    if let Some(leaf) = node.leaf(chunk).filter(|leaf| leaf.prefix.covers(address)) {
                        visit(leaf.value);
                    }
                    return;
                }
            }
        }
    }

    /// The value of exactly this prefix.
    pub(super) fn get(&self, prefix: Prefix<K>) -> Option<T> {
        let mut node = &self.root;
        loop {
            if let Some(end) = node.end(prefix) {
                return (node.ends >> end & 1 == 1).then(|| node.values[rank(node.ends, end)]);
            }
            let chunk = prefix.bits.chunk(node.prefix.len);
            match node.node(chunk) {
                Some(below) if below.prefix.contains(prefix) => node = below,
                Some(_) => return None,
                None => return node.leaf(chunk).filter(|leaf| leaf.prefix == prefix).map(|leaf| leaf.value),
            }
        }
    }

    /// Gives a prefix a value; whatever it had is gone.
    pub(super) fn insert(&mut self, prefix: Prefix<K>, value: T) {
        self.len += usize::from(self.root.insert(prefix, value));
    }

    /// Removes a prefix; says whether it was there.
    pub(super) fn remove(&mut self, prefix: Prefix<K>) -> bool {
        let removed = self.root.remove(prefix);
        self.len -= usize::from(removed);
        removed
    }

    /// Removes all prefixes whose value is not to be kept.
    pub(super) fn retain(&mut self, keep: &impl Fn(T) -> bool) {
        self.len -= self.root.retain(keep);
    }

    /// Shows every prefix with its value.
    pub(super) fn for_each(&self, visit: &mut impl FnMut(Prefix<K>, T)) {
        self.root.for_each(visit);
    }
}

impl<K: Bits, T: Copy> Node<K, T> {
    fn new(prefix: Prefix<K>) -> Self {
        Self { prefix, ends: 0, inner: 0, outer: 0, nodes: Vec::new(), leaves: Vec::new(), values: Vec::new() }
    }

    /// The bit of `ends` for a prefix, or `None` if it is longer than those that end here.
    fn end(&self, prefix: Prefix<K>) -> Option<u32> {
        let beyond = prefix.len - self.prefix.len;
        (beyond < STRIDE).then(|| 1 << beyond | prefix.bits.chunk(self.prefix.len) >> (STRIDE - beyond))
    }

    #[inline]
    fn node(&self, chunk: u32) -> Option<&Self> {
        if has(self.inner, chunk) { self.nodes.get(rank(self.inner, chunk)) } else { None }
    }

    #[inline]
    fn leaf(&self, chunk: u32) -> Option<&Leaf<K, T>> {
        if has(self.outer, chunk) { self.leaves.get(rank(self.outer, chunk)) } else { None }
    }

    /// Puts a prefix into this node, whose own it begins with. Whether it is new.
    fn insert(&mut self, prefix: Prefix<K>, value: T) -> bool {
        if let Some(end) = self.end(prefix) {
            let at = rank(self.ends, end);
            if has(self.ends, end) {
                self.values[at] = value;
                return false;
            }
            add(&mut self.ends, &mut self.values, end, value);
            return true;
        }
        let chunk = prefix.bits.chunk(self.prefix.len);
        // Where two part, a node takes both.
        if has(self.inner, chunk) {
            let below = &mut self.nodes[rank(self.inner, chunk)];
            if below.prefix.contains(prefix) {
                return below.insert(prefix, value);
            }
            let parting = Self::new(below.prefix.common(prefix));
            let below = std::mem::replace(below, parting);
            let parting = &mut self.nodes[rank(self.inner, chunk)];
            let slot = below.prefix.bits.chunk(parting.prefix.len);
            add(&mut parting.inner, &mut parting.nodes, slot, below);
            parting.insert(prefix, value);
        } else if has(self.outer, chunk) {
            let leaf = &mut self.leaves[rank(self.outer, chunk)];
            if leaf.prefix == prefix {
                leaf.value = value;
                return false;
            }
            let leaf = take(&mut self.outer, &mut self.leaves, chunk);
            let mut parting = Self::new(leaf.prefix.common(prefix));
            parting.insert(leaf.prefix, leaf.value);
            parting.insert(prefix, value);
            add(&mut self.inner, &mut self.nodes, chunk, parting);
        } else {
            add(&mut self.outer, &mut self.leaves, chunk, Leaf { prefix, value });
        }
        true
    }

    fn remove(&mut self, prefix: Prefix<K>) -> bool {
        if let Some(end) = self.end(prefix) {
            let there = has(self.ends, end);
            if there {
                take(&mut self.ends, &mut self.values, end);
            }
            return there;
        }
        let chunk = prefix.bits.chunk(self.prefix.len);
        if has(self.inner, chunk) {
            let below = &mut self.nodes[rank(self.inner, chunk)];
            let removed = below.prefix.contains(prefix) && below.remove(prefix);
            self.tidy(chunk);
            return removed;
        }
        let there = self.leaf(chunk).is_some_and(|leaf| leaf.prefix == prefix);
        if there {
            take(&mut self.outer, &mut self.leaves, chunk);
        }
        there
    }

    /// Removes what is not to be kept and returns how many it were.
    fn retain(&mut self, keep: &impl Fn(T) -> bool) -> usize {
        let mut removed = 0;
        for end in ones(self.ends) {
            if !keep(self.values[rank(self.ends, end)]) {
                take(&mut self.ends, &mut self.values, end);
                removed += 1;
            }
        }
        for chunk in ones(self.outer) {
            if !keep(self.leaves[rank(self.outer, chunk)].value) {
                take(&mut self.outer, &mut self.leaves, chunk);
                removed += 1;
            }
        }
        for chunk in ones(self.inner) {
            removed += self.nodes[rank(self.inner, chunk)].retain(keep);
            self.tidy(chunk);
        }
        removed
    }

    /// Replaces the node in a slot by what it holds if that is one thing, and removes it if it is nothing.
    fn tidy(&mut self, chunk: u32) {
        let below = &mut self.nodes[rank(self.inner, chunk)];
        let leaf = match (below.nodes.len(), below.leaves.as_slice(), below.values.as_slice()) {
            (0, [], []) => None,
            (0, &[leaf], []) => Some(leaf),
            (0, [], &[value]) => Some(Leaf { prefix: below.ending(below.ends.ilog2()), value }),
            (1, [], []) => {
                if let Some(only) = below.nodes.pop() {
                    *below = only;
                }
                return;
            }
            _ => return,
        };
        take(&mut self.inner, &mut self.nodes, chunk);
        if let Some(leaf) = leaf {
            add(&mut self.outer, &mut self.leaves, chunk, leaf);
        }
    }

    /// The prefix that a bit of `ends` stands for.
    fn ending(&self, end: u32) -> Prefix<K> {
        let beyond = end.ilog2();
        let len = self.prefix.len + beyond;
        Prefix { bits: self.prefix.bits.with(end ^ 1 << beyond, len), len }
    }

    fn for_each(&self, visit: &mut impl FnMut(Prefix<K>, T)) {
        for (end, value) in ones(self.ends).zip(&self.values) {
            visit(self.ending(end), *value);
        }
        for leaf in &self.leaves {
            visit(leaf.prefix, leaf.value);
        }
        for below in &self.nodes {
            below.for_each(visit);
        }
    }
}

impl<K: Bits> Prefix<K> {
    /// Whether `address` begins with it.
    #[inline]
    fn covers(self, address: K) -> bool {
        self.bits.common(address) >= self.len
    }

    /// Whether `other` begins with it.
    fn contains(self, other: Self) -> bool {
        other.len >= self.len && self.covers(other.bits)
    }

    /// The longest prefix of both at which a node may stand.
    fn common(self, other: Self) -> Self {
        let len = self.bits.common(other.bits).min(self.len).min(other.len);
        // Two prefixes of full length differ before their last bit, so this is less than the width.
        let len = len - len % STRIDE;
        Self { bits: self.bits.truncated(len), len }
    }
}

macro_rules! bits {
    ($type:ty) => {
        impl Bits for $type {
            const ZERO: Self = 0;

            #[inline]
            fn chunk(self, depth: u32) -> u32 {
                ((self << depth) >> (Self::BITS - STRIDE)) as u32
            }

            #[inline]
            fn common(self, other: Self) -> u32 {
                (self ^ other).leading_zeros()
            }

            fn truncated(self, len: u32) -> Self {
                self & !(Self::MAX >> len)
            }

            fn with(self, low: u32, len: u32) -> Self {
                // Without bits there may be no position either: nothing is shifted by the whole width then.
                if low == 0 { self } else { self | Self::from(low) << (Self::BITS - len) }
            }
        }
    };
}
bits!(u32);
bits!(u128);

#[inline]
fn has(bitmap: u64, bit: u32) -> bool {
    bitmap >> bit & 1 == 1
}

/// How many ones stand below a bit: where its item is in the array that goes with the bitmap.
#[inline]
fn rank(bitmap: u64, bit: u32) -> usize {
    (bitmap & ((1 << bit) - 1)).count_ones() as usize
}

/// The positions of the ones, rising.
fn ones(bitmap: u64) -> impl Iterator<Item = u32> {
    (0..u64::BITS).filter(move |bit| has(bitmap, *bit))
}

/// Adds the item of a bit that is zero.
fn add<I>(bitmap: &mut u64, items: &mut Vec<I>, bit: u32, item: I) {
    // Doubling would leave a quarter of all memory unused, for most of these arrays are short and stay as they are.
    items.reserve_exact(1);
    items.insert(rank(*bitmap, bit), item);
    *bitmap |= 1 << bit;
}

/// Removes the item of a bit that is one.
fn take<I>(bitmap: &mut u64, items: &mut Vec<I>, bit: u32) -> I {
    *bitmap &= !(1 << bit);
    items.remove(rank(*bitmap, bit))
}

/// Bits that a node decides on: a bitmap of a machine word has room for six.
const STRIDE: u32 = 6;

/// For each chunk the bits of `ends` whose prefixes it begins with.
const COVERING: [u64; 1 << STRIDE] = {
    let mut table = [0; 1 << STRIDE];
    let mut chunk = 0;
    while chunk < table.len() {
        let mut len = 0;
        while len < STRIDE {
            table[chunk] |= 1 << (1 << len | chunk >> (STRIDE - len));
            len += 1;
        }
        chunk += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(bits: u32, len: u32) -> Prefix<u32> {
        Prefix { bits: if len == 32 { bits } else { bits.truncated(len) }, len }
    }

    /// Random prefixes that begin in a few places, so that they nest, part and share nodes at all depths.
    fn prefixes(seed: u64, count: usize) -> Vec<Prefix<u32>> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut one = || {
            let (base, mask) = ([0, 0x0a00_0000, 0x0a80_00ff, u32::MAX][rng.usize(..4)], u32::MAX >> rng.u32(..32));
            prefix(base ^ (rng.u32(..) & mask), rng.u32(0..=32))
        };
        (0..count).map(|_| one()).collect()
    }

    /// How many nodes and leaves there are below, and that no node is one that should not be there.
    fn size(node: &Node<u32, usize>) -> usize {
        assert_eq!(node.values.len(), node.ends.count_ones() as usize);
        assert_eq!(node.nodes.len(), node.inner.count_ones() as usize);
        assert_eq!(node.leaves.len(), node.outer.count_ones() as usize);
        assert_eq!(node.inner & node.outer, 0);
        let below = |below: &Node<u32, usize>| {
            assert!(below.values.len() + below.leaves.len() + below.nodes.len() >= 2, "it holds less than two things");
            assert!(below.prefix.len.is_multiple_of(STRIDE) && below.prefix.len >= node.prefix.len + STRIDE);
            size(below)
        };
        1 + node.leaves.len() + node.nodes.iter().map(below).sum::<usize>()
    }

    #[test]
    fn agrees_with_a_list_while_it_grows_and_shrinks() {
        for seed in 0..20 {
            let (mut trie, mut list) = (Trie::new(), Vec::<(Prefix<u32>, usize)>::new());
            let prefixes = prefixes(seed, 400);
            let check = |trie: &Trie<u32, usize>, list: &[(Prefix<u32>, usize)]| {
                size(&trie.root);
                assert_eq!(trie.len(), list.len());
                for probe in prefixes.iter().flat_map(|p| [p.bits, p.bits.wrapping_sub(1), p.bits ^ 1 << (p.len % 32)])
                {
                    let mut covering: Vec<_> = list.iter().filter(|(p, _)| p.covers(probe)).collect();
                    covering.sort_by_key(|(p, _)| p.len);
                    assert_eq!(trie.longest(probe), covering.last().map(|(_, value)| *value), "{probe:#x}");
                    let mut found = Vec::new();
                    trie.covering(probe, &mut |value| found.push(value));
                    assert_eq!(found, covering.iter().map(|(_, value)| *value).collect::<Vec<_>>(), "{probe:#x}");
                }
                let mut all = Vec::new();
                trie.for_each(&mut |prefix, value| all.push((prefix, value)));
                let order = |(p, _): &(Prefix<u32>, usize)| (p.bits, p.len);
                all.sort_by_key(order);
                let mut expected = list.to_vec();
                expected.sort_by_key(order);
                assert_eq!(all, expected);
            };
            for (value, prefix) in prefixes.iter().enumerate() {
                list.retain(|(other, _)| other != prefix);
                list.push((*prefix, value));
                trie.insert(*prefix, value);
                assert_eq!(trie.get(*prefix), Some(value));
            }
            check(&trie, &list);
            trie.retain(&|value| value % 3 != 0);
            list.retain(|(_, value)| value % 3 != 0);
            check(&trie, &list);
            for prefix in prefixes.iter().step_by(2) {
                let had = list.iter().any(|(other, _)| other == prefix);
                assert_eq!(trie.get(*prefix).is_some(), had);
                assert_eq!(trie.remove(*prefix), had);
                list.retain(|(other, _)| other != prefix);
            }
            check(&trie, &list);
            for prefix in &prefixes {
                trie.remove(*prefix);
            }
            assert_eq!((trie.len(), size(&trie.root)), (0, 1), "nothing stays behind");
        }
    }

    #[test]
    fn the_order_of_insertion_leaves_no_trace() {
        let mut prefixes = prefixes(7, 300);
        prefixes.sort_by_key(|p| (p.bits, p.len));
        prefixes.dedup();
        let size_of = |prefixes: &[Prefix<u32>]| {
            let mut trie = Trie::new();
            for prefix in prefixes {
                trie.insert(*prefix, 0);
            }
            size(&trie.root)
        };
        let sorted = size_of(&prefixes);
        fastrand::Rng::with_seed(1).shuffle(&mut prefixes);
        assert_eq!(size_of(&prefixes), sorted);
    }
}
