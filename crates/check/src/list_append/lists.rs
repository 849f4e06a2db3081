//! What transactions read from lists and appended to them, and the one order of each list that explains it.
//!
//! Invariant: after construction every list that was read or written by a transaction that happened is a prefix of its
//! key's longest.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Bytes, History, Op, Operation, Outcome, Request, Response, Txn};
use crate::shown::shown;
use crate::verdict::Impossible;

/// An element of a list.
pub(super) type Element = u64;

/// What one operation did with lists. It happened.
pub(super) struct Transaction<'a> {
    /// Position in the history.
    pub(super) at: usize,
    /// Lists it saw, before its own appends.
    pub(super) reads: BTreeMap<&'a Bytes, Vec<Element>>,
    /// Lists it wrote, whole.
    pub(super) writes: BTreeMap<&'a Bytes, Vec<Element>>,
}

/// All of them, and the orders.
pub(super) struct Lists<'a> {
    pub(super) transactions: Vec<Transaction<'a>>,
    /// The longest list of each key.
    pub(super) orders: BTreeMap<&'a Bytes, Vec<Element>>,
    /// Who appended an element: position in `transactions`, and whether it is the last of its transaction.
    pub(super) appenders: BTreeMap<(&'a Bytes, Element), (usize, bool)>,
}

/// A write that may not have happened.
struct Doubtful<'a> {
    at: usize,
    writes: BTreeMap<&'a Bytes, Vec<Element>>,
}

impl<'a> Lists<'a> {
    pub(super) fn new(history: &'a History, prefixes: &[&Bytes]) -> Result<Self, Impossible> {
        let mut lists = Self { transactions: Vec::new(), orders: BTreeMap::new(), appenders: BTreeMap::new() };
        let keys = keys(history, prefixes);
        if keys.is_empty() {
            return Ok(lists);
        }
        let mut doubtful = Vec::new();
        for (at, operation) in history.operations.iter().enumerate() {
            match &operation.outcome {
                Outcome::Done { response, .. } => lists.add_done(at, operation, response, &keys)?,
                Outcome::Failed { .. } | Outcome::Unknown => {
                    if let Request::Txn(txn) = &operation.request {
                        let writes = written(&txn.success, &keys, operation)?;
                        doubtful.push(Doubtful { at, writes });
                    }
                }
            }
        }
        let ours = lists.transactions.len();
        for transaction in 0..ours {
            lists.add_appends(history, transaction)?;
        }
        lists.find_orders(history)?;
        lists.add_unknown(history, &doubtful)?;
        lists.check_elements(history, &doubtful)?;
        lists.check_prefixes(history)?;
        Ok(lists)
    }

    fn add_done(
        &mut self,
        at: usize,
        operation: &'a Operation,
        response: &'a Response,
        keys: &BTreeSet<&'a Bytes>,
    ) -> Result<(), Impossible> {
        let is_past = matches!(&operation.request, Request::Range(range) if range.revision > 0);
        let Some(shown) = shown(operation).filter(|_| !is_past) else { return Ok(()) };
        let mut reads = BTreeMap::new();
        for key in keys {
            if shown.spans.iter().any(|span| span.contains(key)) {
                let value = shown.pairs.get(&key[..]).map_or(Ok(Vec::new()), |pair| parse(&pair.value, operation))?;
                reads.insert(*key, value);
            }
        }
        let writes = match (&operation.request, response) {
            (Request::Txn(Txn { success, failure, .. }), Response::Txn { succeeded, .. }) => {
                written(if *succeeded { success } else { failure }, keys, operation)?
            }
            _ => BTreeMap::new(),
        };
        if !reads.is_empty() || !writes.is_empty() {
            self.transactions.push(Transaction { at, reads, writes });
        }
        Ok(())
    }

    /// Who appended what: what a transaction wrote beyond what it read.
    fn add_appends(&mut self, history: &History, number: usize) -> Result<(), Impossible> {
        let transaction = &self.transactions[number];
        let id = history.operations[transaction.at].id;
        for (key, list) in &transaction.writes {
            let known = match transaction.reads.get(key) {
                Some(read) if list.starts_with(read) => read.len(),
                Some(_) => {
                    return Err(Impossible::new(
                        format!("the list {key} that was written does not extend what was read"),
                        [id],
                    ));
                }
                None => list.len().saturating_sub(1),
            };
            for (at, element) in list.iter().enumerate().skip(known) {
                let is_last = at + 1 == list.len();
                if let Some((other, _)) = self.appenders.insert((key, *element), (number, is_last)) {
                    let other = history.operations[self.transactions[other].at].id;
                    return Err(Impossible::new(format!("{element} was appended to {key} twice"), [id, other]));
                }
            }
        }
        Ok(())
    }

    fn find_orders(&mut self, history: &History) -> Result<(), Impossible> {
        for transaction in &self.transactions {
            for (key, list) in transaction.reads.iter().chain(&transaction.writes) {
                let mut once = BTreeSet::new();
                if let Some(twice) = list.iter().find(|element| !once.insert(**element)) {
                    let id = history.operations[transaction.at].id;
                    return Err(Impossible::new(format!("{twice} is in the list {key} twice"), [id]));
                }
                let order = self.orders.entry(key).or_default();
                if list.len() > order.len() {
                    order.clone_from(list);
                }
            }
        }
        Ok(())
    }

    /// An unknown write happened if an element that only it appends was seen; then all its lists count.
    fn add_unknown(&mut self, history: &'a History, doubtful: &[Doubtful<'a>]) -> Result<(), Impossible> {
        let mut open: Vec<&Doubtful<'a>> =
            doubtful.iter().filter(|write| history.operations[write.at].is_unknown()).collect();
        loop {
            let seen = |(key, list): (&&Bytes, &Vec<Element>)| {
                let element = list.last();
                element.is_some_and(|element| self.orders.get(key).is_some_and(|order| order.contains(element)))
            };
            let happened = |write: &&Doubtful<'_>| write.writes.iter().any(seen);
            let (happened, rest): (Vec<_>, Vec<_>) = open.into_iter().partition(happened);
            if happened.is_empty() {
                return Ok(());
            }
            for write in happened {
                let writes = write.writes.clone();
                self.transactions.push(Transaction { at: write.at, reads: BTreeMap::new(), writes });
                self.add_appends(history, self.transactions.len() - 1)?;
            }
            self.find_orders(history)?;
            open = rest;
        }
    }

    /// Every element of an order was appended by somebody who did so.
    fn check_elements(&self, history: &History, doubtful: &[Doubtful<'_>]) -> Result<(), Impossible> {
        for transaction in &self.transactions {
            let id = history.operations[transaction.at].id;
            for (key, list) in &transaction.reads {
                let unknown = list.iter().find(|element| !self.appenders.contains_key(&(key, **element)));
                if let Some(element) = unknown {
                    return Err(unexplained(history, id, key, *element, doubtful));
                }
                let Some(last) = list.last() else { continue };
                let (writer, is_last) = self.appenders[&(*key, *last)];
                if !is_last && self.transactions[writer].at != transaction.at {
                    let writer = history.operations[self.transactions[writer].at].id;
                    let reason =
                        format!("G1b, intermediate read: {last} is not the last its transaction appended to {key}");
                    return Err(Impossible::new(reason, [id, writer]));
                }
            }
        }
        Ok(())
    }

    fn check_prefixes(&self, history: &History) -> Result<(), Impossible> {
        let id = |transaction: &Transaction<'_>| history.operations[transaction.at].id;
        let mut extended: BTreeMap<(&Bytes, &[Element]), &Transaction<'_>> = BTreeMap::new();
        for transaction in &self.transactions {
            for (key, list) in &transaction.writes {
                let read = transaction.reads.get(key).map_or(&list[..list.len().saturating_sub(1)], Vec::as_slice);
                if let Some(other) = extended.insert((key, read), transaction) {
                    let reason = format!("lost update: two transactions extended the same version {read:?} of {key}");
                    return Err(Impossible::new(reason, [id(transaction), id(other)]));
                }
            }
        }
        for transaction in &self.transactions {
            for (key, list) in transaction.reads.iter().chain(&transaction.writes) {
                let order = &self.orders[key];
                if !order.starts_with(list) {
                    let other = self.transactions.iter().find(|other| {
                        let lists = [other.reads.get(key), other.writes.get(key)];
                        lists.into_iter().flatten().any(|other| other == order)
                    });
                    let reason = format!("no order of {key} explains both {list:?} and {order:?}");
                    return Err(Impossible::new(reason, std::iter::once(id(transaction)).chain(other.map(id))));
                }
            }
        }
        Ok(())
    }
}

/// Operation `id` saw an element that no transaction which happened appended.
fn unexplained(history: &History, id: u64, key: &Bytes, element: Element, doubtful: &[Doubtful<'_>]) -> Impossible {
    let wrote = |write: &&Doubtful<'_>| write.writes.get(key).is_some_and(|list| list.last() == Some(&element));
    match doubtful.iter().find(wrote) {
        Some(write) => {
            let reason = format!("G1a, aborted read: {element} of {key} was appended by a transaction that failed");
            Impossible::new(reason, [id, history.operations[write.at].id])
        }
        None => Impossible::new(format!("{element} of {key} was appended by nobody"), [id]),
    }
}

/// Keys of lists that anybody names or sees.
fn keys<'a>(history: &'a History, prefixes: &[&Bytes]) -> BTreeSet<&'a Bytes> {
    let is_list = |key: &Bytes| prefixes.iter().any(|prefix| key.starts_with(prefix));
    let mut keys = BTreeSet::new();
    for operation in &history.operations {
        for span in operation.request.spans() {
            if let crate::span::Span::Key(key) = span {
                keys.insert(key);
            }
        }
        if let Some(shown) = shown(operation) {
            keys.extend(shown.pairs.values().map(|pair| &pair.key));
        }
    }
    keys.retain(|key| is_list(key));
    keys
}

/// The lists that operations write.
fn written<'a>(
    ops: &'a [Op],
    keys: &BTreeSet<&'a Bytes>,
    operation: &Operation,
) -> Result<BTreeMap<&'a Bytes, Vec<Element>>, Impossible> {
    let mut writes = BTreeMap::new();
    for op in ops {
        if let Op::Put(put) = op
            && keys.contains(&put.key)
        {
            writes.insert(&put.key, parse(&put.value, operation)?);
        }
    }
    Ok(writes)
}

fn parse(value: &Bytes, operation: &Operation) -> Result<Vec<Element>, Impossible> {
    if value.is_empty() {
        return Ok(Vec::new());
    }
    let elements =
        std::str::from_utf8(value).ok().and_then(|text| text.split(',').map(|part| part.parse().ok()).collect());
    elements.ok_or_else(|| Impossible::new(format!("{value} is not a list"), [operation.id]))
}
