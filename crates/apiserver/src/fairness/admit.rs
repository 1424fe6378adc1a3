//! The way in: who asks is found out, and their request waits its turn.

use ::http::{HeaderMap, Method};
use api::status::ApiError;

use super::Turn;
use super::estimate::Watching;
use crate::Server;
use crate::audit::{self, Layer};
use crate::auth::Identity;
use crate::http::body;
use crate::http::query::Query;
use crate::http::request::Asked;
use crate::http::respond::{self, Answer, Form};

/// A request whose turn it is.
pub struct Admitted {
    pub who: Identity,
    /// What they are to be warned of, whatever they ask for.
    pub warning: Option<&'static str>,
    pub query: Query,
    pub asked: Asked,
}

/// What is given back when the answer has gone out.
pub struct Held {
    turn: Turn,
    watching: Option<Watching>,
}

impl Held {
    /// Ties what is held to the answer. A watch has its seats only until it has begun.
    pub fn until_sent(self, mut answer: Answer) -> Answer {
        self.turn.mark(&mut answer);
        match self.watching {
            Some(watching) => answer.map(|body| body::holding(body, watching)),
            None => answer.map(|body| body::holding(body, self.turn)),
        }
    }
}

fn is_mutating(verb: &str) -> bool {
    matches!(verb, "create" | "update" | "patch" | "delete" | "deletecollection")
}

impl Server {
    /// Refused in the form in which the client is told of errors.
    pub(crate) async fn admit(
        &self,
        (method, path, headers): (&Method, &str, &HeaderMap),
        (asked, query): (Asked, Query),
        who: Option<Identity>,
        form: Form,
    ) -> Result<(Admitted, Held), Answer> {
        let told = |error: ApiError| respond::error(form, &error);
        let (who, warning) = match who {
            Some(who) => (who, None),
            None => {
                audit::timed(Layer::Authentication, self.authenticate(headers, path)).await.map_err(told)?
            }
        };
        audit::received(&who).await.map_err(told)?;
        let what = asked.attributes(method);
        let spoken_for = self.impersonated(who, headers, &what);
        let who = match headers.contains_key("impersonate-user") {
            true => audit::timed(Layer::Impersonation, spoken_for).await,
            false => spoken_for.await,
        };
        let who = who.map_err(told)?;
        let held = self.wait_turn(method, &who, &asked, &query).await?;
        Ok((Admitted { who, warning, query, asked }, held))
    }

    async fn wait_turn(
        &self,
        method: &Method,
        who: &Identity,
        asked: &Asked,
        query: &Query,
    ) -> Result<Held, Answer> {
        let target = match asked {
            Asked::Resource(target) => Some(target),
            Asked::Path(_) => None,
        };
        if target.is_some_and(|target| target.streams()) {
            // They last as long as whoever asks for them wants, and mean a node more work than this server.
            return Ok(Held { turn: Turn::free(), watching: None });
        }
        let plan = self.fairness_plan().await;
        let version = target.map_or("", |target| target.version.as_str());
        let seats = async |level: &super::Level| match target {
            Some(target) => self.seats(target, query, level).await,
            None => 1,
        };
        let what = asked.attributes(method);
        let mut turn = self.fairness.turn(&plan, who, &what, version, seats).await?;
        let watching = target.filter(|t| t.verb == "watch").map(|t| self.fairness.watching(t));
        if let Some(target) = target.filter(|t| is_mutating(t.verb)) {
            turn.linger(self.fairness.told_for(target));
        }
        Ok(Held { turn, watching })
    }
}
