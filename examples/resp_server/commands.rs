//! The commands.

use std::{
    io::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use framewire::{Handled, PacketHandler, Session};

use crate::{
    framing::Arguments,
    store::{NotAdded, OVERHEAD, Store, When, Written, number},
};

const OK: &str = "+OK\r\n";
const NIL: &str = "$-1\r\n";
const SYNTAX: &str = "-ERR syntax error\r\n";
const NO_NUMBER: &str = "-ERR value is not an integer or out of range\r\n";
const FULL: &str = "-OOM command not allowed when used memory > 'maxmemory'\r\n";
/// The longest name of a command, in bytes.
const NAME: usize = 16;

type Done = Handled;

/// Replies to the requests of all sessions of a shard. Sessions have no state between two requests.
#[derive(Clone)]
pub(crate) struct Commands {
    store: Arc<Store>,
}

impl Commands {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self { store }
    }
}

impl PacketHandler for Commands {
    type State = ();

    fn on_open(&mut self, _session: &mut Session<'_>) -> Done {
        Ok(())
    }

    fn on_packet(&mut self, session: &mut Session<'_>, _state: &mut (), packet: &[u8]) -> Done {
        let mut args = Arguments::of(packet);
        // An empty line, typed by a person.
        let Some(given) = args.next() else { return Ok(()) };
        let mut name = [0; NAME];
        let Some(name) = name.get_mut(..given.len()) else { return unknown(session, given) };
        name.copy_from_slice(given);
        name.make_ascii_uppercase();
        match (&*name, args.clone().count()) {
            (b"GET", 1) => self.get(session, args),
            (b"SET", 2..) => self.set(session, args),
            (b"PING", 0) => say(session, "+PONG\r\n"),
            (b"PING" | b"ECHO", 1) => args.try_for_each(|text| bulk(session, text)),
            (b"DEL" | b"UNLINK", 1..) => self.delete(session, args),
            (b"EXISTS", 1..) => self.exists(session, args),
            (b"INCR", 1) => self.add(session, args, 1),
            (b"DECR", 1) => self.add(session, args, -1),
            (b"INCRBY" | b"DECRBY", 2) => self.add_many(session, name, args),
            (b"MGET", 1..) => self.get_many(session, args),
            (b"MSET", pairs) if pairs > 0 && pairs % 2 == 0 => self.set_many(session, args),
            (b"TTL", 1) => self.time_left(session, args, 1000),
            (b"PTTL", 1) => self.time_left(session, args, 1),
            (b"DBSIZE", 0) => integer(session, self.store.whole().len() as i64),
            (b"FLUSHALL" | b"FLUSHDB", 0 | 1) => {
                self.store.whole().clear();
                say(session, OK)
            }
            (b"INFO", _) => self.info(session),
            (b"SELECT", 1) if args.next() == Some(b"0") => say(session, OK),
            (b"SELECT", 1) => say(session, "-ERR DB index is out of range\r\n"),
            (b"COMMAND", _) => say(session, "*0\r\n"),
            (b"CONFIG", 2..) => config(session, args),
            (b"CLIENT", 1..) => say(session, OK),
            (b"QUIT", _) => {
                say(session, OK)?;
                session.close();
                Ok(())
            }
            (known, _) if KNOWN.contains(&known) => arity(session, known),
            _ => unknown(session, given),
        }
    }
}

/// The known commands: with a wrong number of arguments, the error says so.
const KNOWN: &[&[u8]] = &[
    b"GET",
    b"SET",
    b"PING",
    b"ECHO",
    b"DEL",
    b"UNLINK",
    b"EXISTS",
    b"INCR",
    b"DECR",
    b"INCRBY",
    b"DECRBY",
    b"MGET",
    b"MSET",
    b"TTL",
    b"PTTL",
    b"DBSIZE",
    b"FLUSHALL",
    b"FLUSHDB",
    b"SELECT",
    b"CONFIG",
    b"CLIENT",
];

impl Commands {
    fn get(&self, session: &mut Session<'_>, mut args: Arguments<'_>) -> Done {
        let Some(key) = args.next() else { return say(session, SYNTAX) };
        match self.store.part(key).get(key) {
            Some(wire) => Ok(session.send(wire)?),
            None => say(session, NIL),
        }
    }

    fn set(&self, session: &mut Session<'_>, mut args: Arguments<'_>) -> Done {
        let (Some(key), Some(value)) = (args.next(), args.next()) else { return say(session, SYNTAX) };
        let options = match SetOptions::parse(args) {
            Ok(options) => options,
            Err(error) => return say(session, error),
        };
        let written = self.store.part(key).set(key, value, options.when, options.until);
        match written {
            Written::Yes => say(session, OK),
            Written::Unmet => say(session, NIL),
            Written::Full => say(session, FULL),
        }
    }

    fn delete(&self, session: &mut Session<'_>, args: Arguments<'_>) -> Done {
        let mut whole = self.store.whole();
        let deleted = args.filter(|key| whole.part(key).remove(key)).count();
        integer(session, deleted as i64)
    }

    fn exists(&self, session: &mut Session<'_>, args: Arguments<'_>) -> Done {
        let mut whole = self.store.whole();
        let there = args.filter(|key| whole.part(key).get(key).is_some()).count();
        integer(session, there as i64)
    }

    fn add_many(&self, session: &mut Session<'_>, name: &[u8], args: Arguments<'_>) -> Done {
        let Some(delta) = args.clone().nth(1).and_then(number) else { return say(session, NO_NUMBER) };
        let delta = if name == b"DECRBY" { delta.checked_neg() } else { Some(delta) };
        match delta {
            Some(delta) => self.add(session, args, delta),
            None => say(session, "-ERR decrement would overflow\r\n"),
        }
    }

    fn add(&self, session: &mut Session<'_>, mut args: Arguments<'_>, delta: i64) -> Done {
        let Some(key) = args.next() else { return say(session, SYNTAX) };
        let sum = self.store.part(key).add(key, delta);
        match sum {
            Ok(sum) => integer(session, sum),
            Err(NotAdded::NoNumber) => say(session, NO_NUMBER),
            Err(NotAdded::Overflow) => say(session, "-ERR increment or decrement would overflow\r\n"),
            Err(NotAdded::Full) => say(session, FULL),
        }
    }

    fn get_many(&self, session: &mut Session<'_>, args: Arguments<'_>) -> Done {
        let mut whole = self.store.whole();
        format(session, format_args!("*{}\r\n", args.clone().count()))?;
        for key in args {
            session.send(whole.part(key).get(key).unwrap_or(NIL.as_bytes()))?;
        }
        Ok(())
    }

    fn set_many(&self, session: &mut Session<'_>, mut args: Arguments<'_>) -> Done {
        // The overhead of one of a pair is more than the digits and line ends of the other.
        let bytes = args.clone().fold(0, |bytes, text| bytes + text.len() + OVERHEAD);
        let mut whole = self.store.whole();
        if !whole.has_room(bytes) {
            return say(session, FULL);
        }
        while let (Some(key), Some(value)) = (args.next(), args.next()) {
            whole.part(key).set(key, value, When::Always, None);
        }
        say(session, OK)
    }

    /// In units of that many milliseconds, rounded.
    fn time_left(&self, session: &mut Session<'_>, mut args: Arguments<'_>, unit: u128) -> Done {
        let Some(key) = args.next() else { return say(session, SYNTAX) };
        let until = self.store.part(key).until(key);
        match until {
            None => integer(session, -2),
            Some(None) => integer(session, -1),
            Some(Some(until)) => {
                let left = until.saturating_duration_since(Instant::now()).as_millis();
                // The lifetime of a key and half a unit may exceed 64 bits of milliseconds.
                integer(session, i64::try_from((left + unit / 2) / unit).unwrap_or(i64::MAX))
            }
        }
    }

    fn info(&self, session: &mut Session<'_>) -> Done {
        let (keys, bytes) = {
            let whole = self.store.whole();
            (whole.len(), whole.bytes())
        };
        let text = format!(
            "# Server\r\nredis_version:7.0.0\r\nredis_mode:standalone\r\nserver_name:framewire resp_server\r\n\
             # Memory\r\nused_memory:{bytes}\r\n# Keyspace\r\ndb0:keys={keys},expires=0,avg_ttl=0\r\n"
        );
        bulk(session, text.as_bytes())
    }
}

struct SetOptions {
    when: When,
    until: Option<Instant>,
}

impl SetOptions {
    fn parse(mut args: Arguments<'_>) -> Result<Self, &'static str> {
        let mut options = Self { when: When::Always, until: None };
        while let Some(option) = args.next() {
            let is = |name: &str| option.eq_ignore_ascii_case(name.as_bytes());
            if is("NX") && options.when == When::Always {
                options.when = When::Absent;
            } else if is("XX") && options.when == When::Always {
                options.when = When::Present;
            } else if (is("EX") || is("PX")) && options.until.is_none() {
                let time = number(args.next().ok_or(SYNTAX)?).ok_or(NO_NUMBER)?;
                options.until = Some(after(time, is("EX"))?);
            } else {
                return Err(SYNTAX);
            }
        }
        Ok(options)
    }
}

fn after(time: i64, seconds: bool) -> Result<Instant, &'static str> {
    let millis =
        time.checked_mul(if seconds { 1000 } else { 1 }).and_then(|millis| u64::try_from(millis).ok());
    let millis = millis.filter(|millis| *millis > 0).map(Duration::from_millis);
    let until = millis.and_then(|after| Instant::now().checked_add(after));
    until.ok_or("-ERR invalid expire time in 'set' command\r\n")
}

/// The tools ask for these two settings before they begin: nothing is kept on disk here.
fn config(session: &mut Session<'_>, mut args: Arguments<'_>) -> Done {
    match (args.next(), args.next()) {
        (Some(get), Some(b"save")) if get.eq_ignore_ascii_case(b"GET") => {
            say(session, "*2\r\n$4\r\nsave\r\n$0\r\n\r\n")
        }
        (Some(get), Some(b"appendonly")) if get.eq_ignore_ascii_case(b"GET") => {
            say(session, "*2\r\n$10\r\nappendonly\r\n$2\r\nno\r\n")
        }
        (Some(get), Some(_)) if get.eq_ignore_ascii_case(b"GET") => say(session, "*0\r\n"),
        _ => say(session, "-ERR only CONFIG GET is supported\r\n"),
    }
}

fn say(session: &mut Session<'_>, wire: &str) -> Done {
    Ok(session.send(wire)?)
}

fn integer(session: &mut Session<'_>, number: i64) -> Done {
    format(session, format_args!(":{number}\r\n"))
}

fn bulk(session: &mut Session<'_>, text: &[u8]) -> Done {
    format(session, format_args!("${}\r\n", text.len()))?;
    session.send(text)?;
    say(session, "\r\n")
}

/// Sends a text of at most 32 bytes, put together on the stack.
fn format(session: &mut Session<'_>, text: std::fmt::Arguments<'_>) -> Done {
    let mut wire = [0; 32];
    let mut free = &mut wire[..];
    free.write_fmt(text)?;
    let used = 32 - free.len();
    Ok(session.send(wire.get(..used).unwrap_or_default())?)
}

fn arity(session: &mut Session<'_>, name: &[u8]) -> Done {
    let name = name.escape_ascii().to_string().to_lowercase();
    say(session, &format!("-ERR wrong number of arguments for '{name}' command\r\n"))
}

fn unknown(session: &mut Session<'_>, name: &[u8]) -> Done {
    let name = name.get(..name.len().min(64)).unwrap_or_default().escape_ascii();
    say(session, &format!("-ERR unknown command '{name}'\r\n"))
}
